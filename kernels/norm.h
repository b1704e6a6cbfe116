// Batch normalisation over all axes but the last, fused with the residual add and the ReLU that follow it.
#pragma once

#include <cmath>

#include "array.h"

namespace stairgrad::kernels {

/// Statistics over the batch, (c) each, f32 (f64 for f64 input): mean and biased variance.
struct BatchStatistics {
  Array mean, var;
};
BatchStatistics batch_statistics(const Array& x);

/// y = act((x - mean) / sqrt(var + eps) * gamma + beta + skip); act is ReLU, up to `high` (6 for ReLU6), or
/// nothing; skip may be without value. x (..., c) f32, bf16 or f64; the per-channel arrays are f32 (f64 for
/// f64 input); skip and y have x's type.
Array batch_norm(const Array& x, const Array& mean, const Array& var, const Array& gamma, const Array& beta,
                 double eps, const Array& skip = {}, bool relu = false, double high = HUGE_VAL);

/// Gradients of batch_norm with mean and var taken from x (training).
struct BatchNormGradients {
  Array x, gamma, beta;
  Array skip;  ///< relu-masked gradient, only when asked for
};
/// `y`, the result of batch_norm, is only looked at where relu masks the gradient. Where no skip was added it
/// may be left out if `beta` is given: finding the mask again from x is cheaper than reading y. Then x may
/// be just inside `high` where y, in bf16, was rounded to it.
BatchNormGradients batch_norm_backward(const Array& x, const Array& mean, const Array& var,
                                       const Array& gamma, double eps, const Array& diff_y, const Array& y,
                                       bool relu, bool skip_needed, const Array& beta = {},
                                       double high = HUGE_VAL);

}  // namespace stairgrad::kernels
