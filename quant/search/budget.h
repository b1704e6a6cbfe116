// Keeping the expected BOPs of a supernet at a budget.
#pragma once

#include "../../autograd/tensor.h"
#include "../../nn/module.h"

namespace stairgrad::quant {

/// The method of multipliers for E[BOPs] = budget (Hestenes, 1969; Powell, 1969). The released code of GMPQ
/// and EdMIPS multiplies the cost by a constant, which people tune until the result is near the budget. With
/// r = log(E[BOPs] / budget) the loss gets
///     multiplier * r + stiffness / 2 * r^2
/// and after each step the multiplier moves by rate * r. It may fall below zero: a budget is there to be
/// spent.
class Budget {
 public:
  explicit Budget(int64_t bops, double stiffness = 5, double rate = 0.02);

  int64_t bops() const { return bops_; }
  double multiplier() const { return multiplier_.item(); }
  /// Of supernet.expected_bops(); scalar.
  Tensor penalty(const Tensor& expected_bops) const;
  void update(double expected_bops);
  /// For checkpoints; shares memory.
  nn::State state() const { return {{"multiplier", multiplier_}}; }

 private:
  int64_t bops_;
  double stiffness_, rate_;
  Array multiplier_;
};

}  // namespace stairgrad::quant
