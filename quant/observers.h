// Observers: which range to quantize data with, found from the data alone.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../kernels/array.h"

namespace stairgrad::quant {

/// The values that a grid covers.
struct ValueRange {
  double low = 0, high = 0;
};
/// One for all of a tensor, or one for each slice of the outermost axis.
using Ranges = std::vector<ValueRange>;

struct ObserverOptions {
  int bits = 8;               ///< "mse" and "kl" look for the range that suits so many
  bool symmetric = false;     ///< weights: [-u, u]; else l <= 0 <= u
  int64_t groups = 1;         ///< slices of the outermost axis that have ranges of their own
  double momentum = 0.9;      ///< "ema"
  double percentile = 99.99;  ///< "percentile"
  double sigmas = 3;          ///< "sigma"
  double power = 2.4;         ///< "mse": of the errors that are summed
};

/// Watches weights once, or activations batch by batch.
class Observer {
 public:
  explicit Observer(const ObserverOptions& options) : options_(options) {}
  virtual ~Observer() = default;

  /// Looks at x (f32, bf16 or f64). Throws argument_error for an empty array, numeric_error for NaN and
  /// infinity.
  void observe(const Array& x);
  /// The ranges for what it has seen. Throws argument_error if that is nothing.
  Ranges ranges() const;

 protected:
  const ObserverOptions& options() const { return options_; }

 private:
  /// The smallest and the largest value of each slice come along.
  virtual void see(const Array& x, const Ranges& extremes) = 0;
  /// Of each slice; ranges() makes them symmetric, or lets them include 0.
  virtual Ranges found() const = 0;

  ObserverOptions options_;
  bool seen_ = false;
};

/// By name:
/// - minmax: the extremes of everything
/// - ema: the extremes of each batch, averaged with weights momentum^age
/// - ema_compat: the same with the bias correction of GDFQ and its descendants, which explodes at first
/// - image_mean: the extremes of each image (slice of the outermost axis), averaged: MQBench's of activations
/// - percentile: what leaves (100 - percentile) % of values outside, in equal shares if both ends may move
/// - sigma: mean +- sigmas * deviation, at most the extremes
/// - mse: the extremes times the factor with the least sum of |x - Q(x)|^power
/// - kl: [-t, t] with the least divergence of the quantized from the clipped distribution, at most the
///   extremes (Migacz, GTC 2017)
///
/// Throws argument_error for another name, listing these.
std::unique_ptr<Observer> make_observer(const std::string& name, const ObserverOptions& options);
std::vector<std::string> observer_names();

/// One more batch for an average of ranges with weights momentum^age. The newest has (1 - momentum) /
/// (1 - momentum^batches), so that there is no bias towards where the average started. `batches` counts.
void average_in(Ranges& average, const Ranges& newest, double& batches, double momentum);

}  // namespace stairgrad::quant
