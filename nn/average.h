// Averages of weights over the steps of a training.
#pragma once

#include "module.h"

namespace stairgrad::nn {

/// Exponential moving average of a model's parameters and buffers (Polyak and Juditsky, 1992, in the form
/// that Tarvainen and Valpola, NIPS'17, use): often a better network than that of the last step.
class WeightAverage {
 public:
  /// Starts at the model's values. Throws argument_error unless 0 < decay < 1.
  WeightAverage(const Module& model, double decay);

  /// average <- d average + (1 - d) model, with d = min(decay, (1 + t) / (10 + t)) at update t = 0, 1, ...
  void update();
  /// Exchanges the model's values and the averages: once to evaluate, once more to go on.
  void swap();

  /// For checkpoints; shares memory.
  State state() const;

 private:
  State model_, average_;
  Array updates_ = Array::scalar(0, DType::f64);
  double decay_;
};

}  // namespace stairgrad::nn
