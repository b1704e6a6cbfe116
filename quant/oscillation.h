// Weights that jump to and fro between two levels (Nagel et al., *Overcoming Oscillations in
// Quantization-Aware Training*, ICML'22).
#pragma once

#include "sites.h"

namespace stairgrad::quant {

/// Counts oscillations of the quantized weights. A weight oscillates when its code changes in the direction
/// opposite to its last change; its frequency is the exponential average of that over the steps (the paper's
/// eq. 4).
class OscillationCounter {
 public:
  /// Of the weights of `model`, whose sites these are. Throws argument_error unless 0 < momentum < 1, which
  /// is the weight of the newest step.
  OscillationCounter(const nn::Model& model, const Sites& sites, double momentum = 0.01);

  /// To be called after every step of the optimiser. Codes are those on the grids as they are: ranges that
  /// follow the weights are those of the step's forward.
  void update();
  /// Share of the weights of each site, by its name, whose frequency is above `threshold` (the paper's:
  /// 0.005).
  std::map<std::string, double> shares(double threshold = 0.005) const;

  /// For checkpoints; shares memory.
  nn::State state() const;

 private:
  struct Layer {
    std::shared_ptr<Quantizer> quantizer;
    Tensor weight;
    Array integers;  // at the last update, NaN before the first
    Array direction, frequency;
  };
  std::map<std::string, Layer> layers_;
  double momentum_;
};

/// The dampening loss, sum over all quantized weights of (Q(w) - clip(w))^2 with Q(w) as a constant (eq. 6):
/// it draws weights to the middle of their bins.
Tensor dampening(const nn::Model& model, const Sites& sites);

}  // namespace stairgrad::quant
