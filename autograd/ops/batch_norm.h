// Batch normalisation over all axes but the last, fused with the residual add and the ReLU that follow it.
// y = act((x - mean) / sqrt(var + eps) * gamma + beta + skip), act being ReLU, ReLU6 or nothing.
#pragma once

#include <cmath>

#include "../op.h"

namespace stairgrad {

/// Inputs: x, gamma, beta; mean and var in evaluation; skip if has_skip. Outputs: y; in training also the
/// batch's mean and biased variance, which are constants (they feed running statistics).
struct BatchNormOp final : Op {
  double eps = 1e-5;
  bool relu = false;
  bool has_skip = false;
  bool training = false;
  double high = HUGE_VAL;  ///< upper limit of the ReLU

  BatchNormOp(double eps, bool relu, bool has_skip, bool training, double high)
      : eps(eps), relu(relu), has_skip(has_skip), training(training), high(high) {}
  int skip_input() const { return training ? 3 : 5; }

  std::string_view name() const override { return "batch_norm"; }
  Arrays forward(const Arrays& in) const override;
  Tensors vjp(const Vjp& v) const override;
  Saved saved() const override;
  bool differentiable(int output) const override { return output == 0; }
  bool mixed_types() const override { return true; }
  Tensors decompose(const Tensors& inputs) const override;
};

struct BatchNormOptions {
  double eps = 1e-5;
  bool relu = false;
  double high = HUGE_VAL;  ///< upper limit of the ReLU: 6 for ReLU6
};

struct BatchNormResult {
  Tensor y;
  Tensor mean, var;  ///< of the batch, (c): constants
};

/// With the statistics of the batch. x (..., c) f32, bf16 or f64; gamma and beta (c), f32 for bf16 x; skip,
/// if given, as x. Throws argument_error when shapes or types do not fit.
BatchNormResult batch_norm_train(const Tensor& x, const Tensor& gamma, const Tensor& beta,
                                 const BatchNormOptions& options = {}, const Tensor& skip = {});

/// With given statistics, which are constants: no gradient flows to mean and var, and it throws if they ask
/// for one.
Tensor batch_norm_eval(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& mean,
                       const Tensor& var, const BatchNormOptions& options = {}, const Tensor& skip = {});

}  // namespace stairgrad
