// Quantizers whose ranges are watched, not learned: what `ste` and `dsq_fixed` have in common.
#pragma once

#include "../observers.h"
#include "../quantizer.h"

namespace stairgrad::quant {

/// The range is that of an observer (observers.h), by the setting "range". Of weights it is found anew in
/// every call; in evaluation, only if the weights have changed since. Of activations the ranges of the
/// batches seen in training are averaged with momentum 0.9 and no bias towards the start or, with "minmax",
/// enclosed; in evaluation the range is fixed.
class Observed : public Quantizer {
 public:
  QuantizerTraits traits() const override { return {.learned = false, .follows = options().weight}; }
  Grids grids(const Arrays&) const override;

 protected:
  Observed(const QuantizerOptions& options, int64_t channels);

 private:
  void choose(const Array& x) override { follow(x); }
  void observe(const Array& x) override;
  void follow(const Array& x);

  std::string observer_;
  Array &low_, &high_, &batches_;
  Array followed_;      // in evaluation: the weights whose range it is,
  uint64_t found_ = 0;  // unless another one has been loaded since
};

/// The settings of an observed quantizer: "range" (`first` if it is not given; "mqbench" is sigma for weights
/// and image_mean for activations), "sigmas" and "percentile".
std::vector<SettingRule> range_rules(const std::string& first, double sigmas);

}  // namespace stairgrad::quant
