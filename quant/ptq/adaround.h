// AdaRound: whether each weight is rounded up or down is learned (Nagel et al., ICML'20).
#pragma once

#include "../../autograd/ops.h"
#include "../../autograd/quantized.h"

namespace stairgrad::quant {

/// h(V) = clamp(sigmoid(V) (zeta - gamma) + gamma, 0, 1) with zeta = 1.1, gamma = -0.1 (eq. 23).
Tensor rectified_sigmoid(const Tensor& v);

/// sum (1 - |2 h - 1|^beta): zero if and only if every h is 0 or 1 (eq. 24).
Tensor rounding_regulariser(const Tensor& h, double beta);

/// Of step t of `steps`: 20 during the first `warmup` share of them, then linear down to 2.
struct BetaSchedule {
  double warmup = 0.2, start = 20, end = 2;
  double beta(int64_t t, int64_t steps) const;
  bool warming_up(int64_t t, int64_t steps) const {
    return static_cast<double>(t) < warmup * static_cast<double>(steps);
  }
};

/// The rounding of one layer's weights on fixed grids, one for the layer or one for each output channel.
class Rounding {
 public:
  /// V starts where h(V) is the fraction of W / s, so that the soft weights are W where no code is clamped.
  /// `name` is the leaf's. f32, or f64 for gradient checks.
  Rounding(const Array& weights, const Grids& grids, const std::string& name);

  const Tensor& variable() const { return v_; }
  /// s (clamp(floor(W / s + z) + h, lo, hi) - z).
  Tensor soft(const Tensor& h) const;
  /// The same with h = 1 where V >= 0, else 0: the weights that are deployed.
  Array hard() const;
  /// Share of the variables whose h is within `distance` of 0 or 1.
  double settled(double distance = 0.05) const;

 private:
  Tensor weights_of(const Tensor& up) const;

  Array floor_, step_, zero_point_;  // floor of W / s + z; s and z shaped to broadcast
  double lo_, hi_;
  Tensor v_;
};

}  // namespace stairgrad::quant
