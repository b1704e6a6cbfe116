// A part for each image: activations whose bits differ from image to image. Lowering makes a table for each
// candidate of it.
#pragma once

#include "../autograd/op.h"

namespace stairgrad::quant {

/// Row i of the result is row i of parts[k], with k the largest of gates[i]. Inputs: gates (n, parts), then
/// the parts, all of one shape (n, ...). The gradient is that of sum_k gates[:, k] * parts[k].
struct ImageChoiceOp final : Op {
  int column;  ///< which column of the integer runtime's choices says k

  explicit ImageChoiceOp(int column) : column(column) {}
  std::string_view name() const override { return "image_choice"; }
  Arrays forward(const Arrays& in) const override;
  Tensors vjp(const Vjp& v) const override;
  Saved saved() const override;
  bool mixed_types() const override { return true; }
  Tensors decompose(const Tensors& in) const override;
  int inputs = 0;  ///< gates and parts
};
Tensor image_choice(const Tensor& gates, const Tensors& parts, int column);

}  // namespace stairgrad::quant
