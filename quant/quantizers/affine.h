// The asymmetric affine quantizer of post-training methods (BRECQ, QDrop, PD-Quant).
#pragma once

#include <cmath>

#include "../quantizer.h"

namespace stairgrad::quant {

/// Codes 0 .. 2^b - 1 stand for (code - z) s, with an integer z that is chosen once and stays, and a step s
/// that activations learn.
class Affine : public Quantizer {
 public:
  Affine(const QuantizerOptions& options, int64_t channels);

  QuantizerTraits traits() const override {
    return {.uniform = !border_, .deployable = !border_, .learned = !options().weight};
  }
  Grids grids(const Arrays& parameters) const override;
  Tensor apply(const Tensors& in) const override;
  Tensor surrogate(const Tensors& in, const Arrays& at) const override;
  /// s = |s|, at least the smallest number that still has an inverse (QDrop).
  void project() override;

  /// Of activations; learned.
  Tensor step() const { return own_parameters().at(0); }
  /// With the setting "border=yes", of activations: where values between two levels are rounded up
  /// (ptq/border.h), learned; undefined otherwise. Then the grid is not uniform.
  Tensor border() const { return border_ ? *border_ : Tensor(); }
  /// Levels, with a border as well.
  Grids levels() const;
  /// Takes other levels; their codes must be those of levels().
  void set_levels(const Grids& grids);

 private:
  void choose(const Array& x) override;
  Grids levels(const Arrays& parameters) const;
  Grid codes(double zero_point) const;
  /// True where codes lie evenly on both sides of zero: with 1 bit, and weights with 8, so that they fit s8.
  bool even() const;

  Array& zero_point_;
  Array* weight_scale_;   // null for activations, whose scale is a parameter
  const Tensor* border_;  // null without
};

/// A value and how often it occurs.
struct WeightedValue {
  float value, count;
};
/// All values of x, or 8,192 bins of equal width, centred on multiples of it, if there are more than 65,536.
std::vector<WeightedValue> weighted_values(const float* x, int64_t n);

/// The affine grid with the least sum of count |x - Q(x)|^power: of 100 ranges [0, t] or [-t, 0] if no two
/// values differ in sign, else of 100 widths and every zero point (Wei et al., QDrop, its observer); with
/// more than 4 bits the 16 zero points nearest to that of the extremes. `even` searches 100 ranges [-t, t] of
/// the symmetric grid instead.
Grid least_error_grid(const std::vector<WeightedValue>& x, int bits, bool even, double power = 2.4);
/// What that search minimises.
double quantization_error(const std::vector<WeightedValue>& x, const Grid& grid, double power,
                          double limit = HUGE_VAL);

}  // namespace stairgrad::quant
