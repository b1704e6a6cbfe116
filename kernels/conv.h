// 2-D convolution and its two adjoints. The three are bilinear and closed under differentiation (design: C,
// D, W).
#pragma once

#include <array>

#include "array.h"

namespace stairgrad {

/// Attributes of a 2-D convolution, rows before columns. Four paddings, because TensorFlow pads one side
/// more.
struct Conv2dOptions {
  std::array<int64_t, 2> stride{1, 1};
  std::array<int64_t, 4> padding{0, 0, 0, 0};  ///< top, bottom, left, right
  std::array<int64_t, 2> dilation{1, 1};
  int64_t groups = 1;

  static Conv2dOptions with(int64_t stride, int64_t padding, int64_t groups = 1) {
    return {{stride, stride}, {padding, padding, padding, padding}, {1, 1}, groups};
  }
  bool operator==(const Conv2dOptions&) const = default;
};

namespace kernels {

/// Shape of the result for src (n, h, w, ic) and weights (oc, kh, kw, ic / groups).
/// Throws argument_error when they do not fit together.
Shape conv2d_shape(const Shape& src, const Shape& weights, const Conv2dOptions& options);

/// C(x, w): (n, h, w, ic) x (oc, kh, kw, ic / groups) -> (n, oh, ow, oc). src is f32, bf16 or f64; with bf16
/// the weights may be f32 (they are rounded) and the result is bf16. Sums are multiplied by `scale`, f32
/// (oc), before they are rounded, if it has a value.
Array conv2d(const Array& src, const Array& weights, const Conv2dOptions& options, const Array& scale = {});

/// D(g, w): the gradient of C with respect to src, of shape `src_shape` and the type of diff_dst.
Array conv2d_backward_data(const Array& diff_dst, const Array& weights, const Shape& src_shape,
                           const Conv2dOptions& options);

/// W(x, g): the gradient of C with respect to weights, of shape `weights_shape`; f32 when src is bf16.
Array conv2d_backward_weights(const Array& src, const Array& diff_dst, const Shape& weights_shape,
                              const Conv2dOptions& options);

}  // namespace kernels
}  // namespace stairgrad
