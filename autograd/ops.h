// Every op as a function of tensors, in the groups of the op table. Elementwise ops of several tensors
// broadcast as NumPy does. All take f32, bf16 or f64 and throw argument_error on mixed types; conv2d, linear
// and batch norm take bf16 activations with f32 parameters. Each file in ops/ gives the op's derivative and
// tie rule.
#pragma once

#include "../kernels/movement.h"
#include "../kernels/random.h"
#include "../kernels/reduce.h"
#include "op.h"
#include "ops/batch_norm.h"
#include "ops/conv2d.h"
#include "ops/linear.h"
#include "ops/pool2d.h"

namespace stairgrad {

using kernels::Axes;
using kernels::Range;

// --- arithmetic ---
Tensor add(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, const Tensor& b);
Tensor neg(const Tensor& x);
/// x * scale + shift, with constants.
Tensor affine(const Tensor& x, double scale, double shift);
/// x to a constant power.
Tensor pow(const Tensor& x, double exponent);
/// a to the power b, for positive a.
Tensor pow(const Tensor& a, const Tensor& b);

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

// --- comparison and choice ---
/// 1 where it holds, else 0, of the inputs' type; a constant.
Tensor greater(const Tensor& a, const Tensor& b);
Tensor greater_equal(const Tensor& a, const Tensor& b);
Tensor equal(const Tensor& a, const Tensor& b);
Tensor minimum(const Tensor& a, const Tensor& b);
Tensor maximum(const Tensor& a, const Tensor& b);
/// condition != 0 ? a : b.
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);

// --- elementwise functions ---
Tensor exp(const Tensor& x);
Tensor log(const Tensor& x);
Tensor sqrt(const Tensor& x);
/// 1 / sqrt(x).
Tensor rsqrt(const Tensor& x);
Tensor square(const Tensor& x);
Tensor abs(const Tensor& x);
/// -1, 0 or 1; its derivative is zero.
Tensor sign(const Tensor& x);
Tensor tanh(const Tensor& x);
Tensor sigmoid(const Tensor& x);
/// log(1 + exp(x)).
Tensor softplus(const Tensor& x);
Tensor relu(const Tensor& x);
/// x limited to [0, 6].
Tensor relu6(const Tensor& x);
/// x where it is positive, else slope * x.
Tensor leaky_relu(const Tensor& x, double slope = 0.01);
/// x limited to [low, high]; the gradient is zero at the bounds, unlike clamp's.
Tensor hardtanh(const Tensor& x, double low = -1, double high = 1);
/// x * sigmoid(x).
Tensor silu(const Tensor& x);
/// x * relu6(x + 3) / 6.
Tensor hardswish(const Tensor& x);
/// x limited to [low, high]; the gradient passes at the bounds.
Tensor clamp(const Tensor& x, double low, double high);

// --- rounding and gradients on request ---
/// To integers, half to even; the derivative is zero.
Tensor round(const Tensor& x);
/// The largest integer not above x; the derivative is zero.
Tensor floor(const Tensor& x);
/// round and floor whose gradient passes straight through (Bengio et al., 2013); their second derivative is
/// exactly zero.
Tensor round_ste(const Tensor& x);
Tensor floor_ste(const Tensor& x);
/// x as a constant that stays visible in traces.
Tensor stop_grad(const Tensor& x);
/// Another floating type.
Tensor cast(const Tensor& x, DType dtype);
/// u where x is inside (low, high), or [low, high] if closed, else 0: the gradient of a clipped function.
Tensor pass_inside(const Tensor& u, const Tensor& x, double low, double high, bool closed);

// --- reductions and their adjoints ---
/// Reductions go over axes (negative count from the end; none means all) and keep them with extent 1 if
/// asked.
Tensor sum(const Tensor& x, const Axes& axes = {}, bool keep_axes = false);
Tensor mean(const Tensor& x, const Axes& axes = {}, bool keep_axes = false);
/// Variance: squared deviations over (count - correction).
Tensor var(const Tensor& x, const Axes& axes = {}, bool keep_axes = false, int64_t correction = 0);
/// The gradient of max and min goes to the first extreme element.
Tensor max(const Tensor& x, const Axes& axes = {}, bool keep_axes = false);
Tensor min(const Tensor& x, const Axes& axes = {}, bool keep_axes = false);
/// Index of the first largest element along one axis, which is taken out; s32.
Tensor argmax(const Tensor& x, int axis = -1);
/// log(sum(exp(x))), without overflow.
Tensor logsumexp(const Tensor& x, const Axes& axes = {}, bool keep_axes = false);
/// Sums to one over axes taken together.
Tensor softmax(const Tensor& x, const Axes& axes = {-1});
Tensor log_softmax(const Tensor& x, const Axes& axes = {-1});
/// Repeats x along axes of extent 1 and missing leading axes.
Tensor broadcast_to(const Tensor& x, const Shape& shape);
/// The adjoint of broadcast_to.
Tensor sum_to(const Tensor& x, const Shape& shape);

// --- shape and movement ---
/// The same memory with another shape.
Tensor reshape(const Tensor& x, const Shape& shape);
/// Axis i of the result is axis permutation[i] of x.
Tensor transpose(const Tensor& x, const std::vector<int>& permutation);
/// Joins tensors that agree in all axes but one.
Tensor concat(const Tensors& parts, int axis);
/// A strided box, one range an axis.
Tensor slice(const Tensor& x, const std::vector<Range>& ranges);
/// [start, stop) of one axis.
Tensor slice(const Tensor& x, int axis, int64_t start, int64_t stop);
/// The adjoint of slice: zeros of `shape` with x written into the box.
Tensor unslice(const Tensor& x, const Shape& shape, const std::vector<Range>& ranges);
/// before[i] and after[i] elements of `value` around axis i.
Tensor pad(const Tensor& x, const std::vector<int64_t>& before, const std::vector<int64_t>& after,
           double value = 0);
/// out[i..., j] = x[i..., index[i..., j]] along the last axis; index is s32.
Tensor gather(const Tensor& x, const Tensor& index);
/// The adjoint of gather: adds x's elements into zeros with the last extent `size`.
Tensor scatter_add(const Tensor& x, const Tensor& index, int64_t size);
/// x's slices index[0], index[1], ... along an axis; index is s32 of rank 1.
Tensor index_select(const Tensor& x, int axis, const Tensor& index);
/// The adjoint of index_select: adds x's slices into zeros with extent `size` along the axis.
Tensor index_add(const Tensor& x, int axis, const Tensor& index, int64_t size);
/// (..., depth) with 1 at index (s32, in [0, depth)).
Tensor one_hot(const Tensor& index, int64_t depth, DType dtype = DType::f32);

struct Sorted {
  Tensor values;
  Tensor index;  ///< s32: where each value stood
};
/// Along the last axis; equal elements keep their order.
Sorted sort(const Tensor& x, bool descending = false);
/// The k largest along the last axis, largest first.
Sorted top_k(const Tensor& x, int64_t k);

// --- products ---
/// op(a) * op(b), where op transposes the last two axes if asked; a (..., m, k), b (..., k, n) with equal
/// leading axes, or b (k, n).
Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a = false, bool transpose_b = false);

// --- resizing (n, h, w, c) ---
/// Mean over bins that cover the plane: bin i of oh covers rows floor(i h / oh) to ceil((i + 1) h / oh).
Tensor adaptive_avg_pool2d(const Tensor& x, int64_t oh, int64_t ow);
/// Element floor(i h / oh) of each axis.
Tensor resize_nearest(const Tensor& x, int64_t oh, int64_t ow);
/// Linear between pixel centres (half-pixel centres, edges clamped; PyTorch's align_corners = false).
Tensor resize_bilinear(const Tensor& x, int64_t oh, int64_t ow);

// --- losses and similarities ---
/// Mean over the batch of -log softmax(logits)[label], logits (n, classes), labels (n) s32; `smoothing` moves
/// that share of each target to the uniform distribution (Szegedy et al., CVPR'16). Throws on a label outside
/// the classes.
Tensor cross_entropy(const Tensor& logits, const Tensor& labels, double smoothing = 0);
/// The same with target distributions (n, classes).
Tensor soft_cross_entropy(const Tensor& logits, const Tensor& targets);
/// Mean over the batch of T^2 KL(softmax(teacher / T) || softmax(student / T)) (Hinton et al., 2015).
Tensor kl_divergence(const Tensor& student, const Tensor& teacher, double temperature = 1);
/// Mean squared difference.
Tensor mse(const Tensor& a, const Tensor& b);
/// x / max(|x|_2, eps) over axes taken together.
Tensor l2_normalise(const Tensor& x, const Axes& axes = {-1}, double eps = 1e-12);
/// <a, b> / (max(|a|, eps) max(|b|, eps)) over axes taken together, which are taken out.
Tensor cosine_similarity(const Tensor& a, const Tensor& b, const Axes& axes = {-1}, double eps = 1e-8);

// --- random, as functions of their key ---
/// Zeroes elements with the given probability and scales the others by 1 / (1 - probability).
Tensor dropout(const Tensor& x, double probability, Philox rng);
/// softmax((logits + Gumbel noise) / temperature) along the last axis (Jang et al., ICLR'17); `hard` rounds
/// to one-hot with a straight-through gradient.
Tensor gumbel_softmax(const Tensor& logits, double temperature, Philox rng, bool hard = false);

}  // namespace stairgrad
