// Every op as a function of tensors. Elementwise ops of two tensors broadcast as NumPy does; all take f32,
// bf16 or f64 and throw argument_error on mixed types.
#pragma once

#include "../kernels/reduce.h"
#include "op.h"
#include "ops/conv2d.h"

namespace stairgrad {

using kernels::Axes;

// --- arithmetic (ops/add.cpp ...) ---
Tensor add(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, const Tensor& b);
Tensor neg(const Tensor& x);
/// x * scale + shift, with constants.
Tensor affine(const Tensor& x, double scale, double shift);

inline Tensor operator+(const Tensor& a, const Tensor& b) { return add(a, b); }
inline Tensor operator-(const Tensor& a, const Tensor& b) { return sub(a, b); }
inline Tensor operator*(const Tensor& a, const Tensor& b) { return mul(a, b); }
inline Tensor operator/(const Tensor& a, const Tensor& b) { return div(a, b); }
inline Tensor operator-(const Tensor& x) { return neg(x); }
inline Tensor operator+(const Tensor& x, double c) { return affine(x, 1, c); }
inline Tensor operator+(double c, const Tensor& x) { return affine(x, 1, c); }
inline Tensor operator-(const Tensor& x, double c) { return affine(x, 1, -c); }
inline Tensor operator-(double c, const Tensor& x) { return affine(x, -1, c); }
inline Tensor operator*(const Tensor& x, double c) { return affine(x, c, 0); }
inline Tensor operator*(double c, const Tensor& x) { return affine(x, c, 0); }
inline Tensor operator/(const Tensor& x, double c) { return affine(x, 1 / c, 0); }

// --- elementwise functions ---
Tensor tanh(const Tensor& x);

// --- reductions and their adjoints ---
/// Sum over axes (negative count from the end; none means all).
Tensor sum(const Tensor& x, const Axes& axes = {}, bool keep_axes = false);
/// Repeats x along axes of extent 1 and missing leading axes.
Tensor broadcast_to(const Tensor& x, const Shape& shape);
/// The adjoint of broadcast_to.
Tensor sum_to(const Tensor& x, const Shape& shape);

// --- shape ---
Tensor reshape(const Tensor& x, const Shape& shape);

}  // namespace stairgrad
