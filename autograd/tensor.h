// Tensor: a value and where it came from.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../kernels/array.h"

namespace stairgrad {

struct Node;

/// An array that autograd follows. A cheap handle: copies share the value and its history. A tensor is a
/// constant, a leaf (a parameter: made by `leaf`), or the output of a recorded op.
class Tensor {
 public:
  Tensor() = default;
  /// A constant.
  Tensor(Array value) : value_(std::move(value)) {}
  /// A constant scalar.
  Tensor(double value, DType dtype) : value_(Array::scalar(value, dtype)) {}
  /// A tensor that gradients can be taken for. `name` appears in traces and errors.
  static Tensor leaf(Array value, std::string name = {});

  const Array& value() const { return value_; }
  const Shape& shape() const { return value_.shape(); }
  int rank() const { return value_.rank(); }
  int64_t dim(int axis) const { return value_.dim(axis); }
  int64_t size() const { return value_.size(); }
  DType dtype() const { return value_.dtype(); }
  /// The only element, as a double.
  double item() const { return value_.item(); }
  /// False for a default-constructed tensor.
  bool defined() const { return value_.has_value() || node_; }

  /// True if gradients flow through this tensor.
  bool requires_grad() const;
  /// The same value as a constant.
  Tensor detach() const { return Tensor(value_); }
  /// A leaf's name; empty for other tensors.
  const std::string& name() const;

  /// The record behind this tensor, or null: which op's which output it is.
  const std::shared_ptr<Node>& node() const { return node_; }
  int output_index() const { return output_; }

  /// For autograd: a value that is output `output` of `node`.
  Tensor(Array value, std::shared_ptr<Node> node, int output)
      : value_(std::move(value)), node_(std::move(node)), output_(output) {}

 private:
  Array value_;
  std::shared_ptr<Node> node_;
  int output_ = 0;
};

using Tensors = std::vector<Tensor>;

}  // namespace stairgrad
