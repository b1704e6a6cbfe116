// Fully connected layer.
#pragma once

#include "../op.h"

namespace stairgrad {

/// Inputs: x, weights and, if there is one, bias.
struct LinearOp final : Op {
  std::string_view name() const override { return "linear"; }
  Arrays forward(const Arrays& in) const override;
  Tensors vjp(const Vjp& v) const override;
  Saved saved() const override { return {.inputs = {0, 1}}; }
  bool mixed_types() const override { return true; }
};

/// x (..., in) * weights (out, in)^T + bias (out) -> (..., out). bf16 x goes with f32 weights and bias: the
/// sum is taken in f32, the result is bf16 and the gradients of the parameters are f32. Throws argument_error
/// when the shapes do not fit.
Tensor linear(const Tensor& x, const Tensor& weights, const Tensor& bias = {});

}  // namespace stairgrad
