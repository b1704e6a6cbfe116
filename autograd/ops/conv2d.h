// Convolution and its two adjoints as ops. They are bilinear and closed under differentiation:
// vjp C(x, w) = (D(u, w), W(x, u)); vjp D(g, w) = (C(u, w), W(u, g)); vjp W(x, g) = (D(g, u), C(x, u)).
#pragma once

#include "../../kernels/conv.h"
#include "../op.h"

namespace stairgrad {

struct Conv2dOp : Op {
  Conv2dOptions options;

  explicit Conv2dOp(const Conv2dOptions& options) : options(options) {}
  std::string_view name() const override { return "conv2d"; }
  Arrays forward(const Arrays& in) const override;
  Tensors vjp(const Vjp& v) const override;
  Saved saved() const override { return {.inputs = {0, 1}}; }
  bool mixed_types() const override { return true; }
};

/// src (n, h, w, ic) * weights (oc, kh, kw, ic / groups) -> (n, oh, ow, oc), cross-correlation as in all
/// frameworks. src f32, bf16 or f64; bf16 src goes with f32 weights. Throws argument_error when the shapes do
/// not fit.
Tensor conv2d(const Tensor& src, const Tensor& weights, const Conv2dOptions& options = {});

/// The gradient of conv2d with respect to src (transposed convolution), of shape src_shape.
Tensor conv2d_backward_data(const Tensor& diff_dst, const Tensor& weights, const Shape& src_shape,
                            const Conv2dOptions& options = {});

/// The gradient of conv2d with respect to weights, of shape weights_shape.
Tensor conv2d_backward_weights(const Tensor& src, const Tensor& diff_dst, const Shape& weights_shape,
                               const Conv2dOptions& options = {});

}  // namespace stairgrad
