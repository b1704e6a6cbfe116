// Pooling of (n, h, w, c), and the adjoints.
#pragma once

#include "../../kernels/pool.h"
#include "../op.h"

namespace stairgrad {

/// Outputs: the largest element of each window (the first one wins a tie), and its position in the plane.
struct MaxPool2dOp final : Op {
  Pool2dOptions options;

  explicit MaxPool2dOp(const Pool2dOptions& options) : options(options) {}
  std::string_view name() const override { return "max_pool2d"; }
  Arrays forward(const Arrays& in) const override;
  Tensors vjp(const Vjp& v) const override;
  Saved saved() const override { return {.outputs = {1}}; }
  bool differentiable(int output) const override { return output == 0; }
};
Tensor max_pool2d(const Tensor& x, const Pool2dOptions& options);
/// Elements at given positions of the (h * w) plane, (n, oh, ow, c) s32; and the adjoint, which adds into
/// zeros of src_shape.
Tensor max_pool2d_gather(const Tensor& x, const Tensor& index);
Tensor max_pool2d_scatter(const Tensor& g, const Tensor& index, const Shape& src_shape);

/// The mean of each window.
struct AvgPool2dOp final : Op {
  Pool2dOptions options;

  explicit AvgPool2dOp(const Pool2dOptions& options) : options(options) {}
  std::string_view name() const override { return "avg_pool2d"; }
  Arrays forward(const Arrays& in) const override;
  Tensors vjp(const Vjp& v) const override;
};
Tensor avg_pool2d(const Tensor& x, const Pool2dOptions& options);
/// The adjoint of avg_pool2d.
Tensor avg_pool2d_backward(const Tensor& diff_y, const Shape& src_shape, const Pool2dOptions& options);

/// The mean of each plane: (n, h, w, c) -> (n, 1, 1, c).
Tensor global_avg_pool(const Tensor& x);
/// The adjoint of global_avg_pool.
Tensor global_avg_pool_backward(const Tensor& diff_y, const Shape& src_shape);

}  // namespace stairgrad
