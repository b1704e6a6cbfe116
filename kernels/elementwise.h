// Elementwise functions of one, two or three arrays, in one vectorised pass. Types f32, bf16, f64; no
// mixtures.
#pragma once

#include "array.h"

namespace stairgrad::kernels {

enum class Unary {
  neg,
  abs,
  sign,
  exp,
  log,
  sqrt,
  rsqrt,
  tanh,
  sigmoid,
  softplus,
  relu,
  floor,
  round /* half to even */,
  reciprocal,
  square,
  erf
};
Array unary(Unary function, const Array& x);

/// x * scale + shift.
Array affine(const Array& x, double scale, double shift);
/// x limited to [low, high]; NaN stays NaN.
Array clamp(const Array& x, double low, double high);

enum class Binary {
  add,
  sub,
  mul,
  div,
  pow,
  minimum,
  maximum,
  greater,
  greater_equal,
  equal  ///< 1 where it holds, else 0, of the inputs' type
};
/// a and b may differ in shape where one has extent 1 or lacks leading axes (NumPy's broadcasting).
Array binary(Binary function, const Array& a, const Array& b);
/// Result shape of binary(). Throws argument_error naming both shapes if they do not fit.
Shape broadcast_shape(const Shape& a, const Shape& b);

/// condition != 0 ? a : b, three arrays of one shape.
Array where(const Array& condition, const Array& a, const Array& b);

/// dst += src, in place (same shape and type): how gradients are summed.
void accumulate(Array& dst, const Array& src);

/// Repeats `src` along its axes of extent 1 and along missing leading axes until it has `shape`.
Array broadcast_to(const Array& src, const Shape& shape);

}  // namespace stairgrad::kernels
