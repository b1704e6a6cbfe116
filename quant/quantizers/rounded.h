// What LSQ, LSQ+ and PACT have in common: rounding that passes gradients straight through between the first
// and the last code, and stops them beyond.
#pragma once

#include "../quantizer.h"

namespace stairgrad::quant {

/// Of y = (clamp(round(p), lo, hi) - zero_point) * scale with p = x / scale + zero_point, and u the gradient
/// with respect to y. Sums have the shape of the scales.
struct RoundedGradients {
  Tensor x;         ///< u where lo < p < hi, else 0
  Tensor rounding;  ///< sum of u (code - p) there
  Tensor below;     ///< sum of u where p <= lo
  Tensor above;     ///< sum of u where p >= hi
};
/// `codes` has zero_point, lo and hi; `scale` one value for each grid.
RoundedGradients rounded_backward(const Tensor& u, const Tensor& x, const Tensor& scale, const Grid& codes);

/// Values on a grid whose step is learned: dx = u inside the grid; dscale = u (code - x / scale) inside,
/// u code at the ends (Esser et al., ICLR'20, eq. 3 and 5), times `scale`.
struct LearnedStepOp final : QuantizeOp {
  const char* quantizer;
  double scale;

  LearnedStepOp(const char* quantizer, Grids grids, double scale)
      : QuantizeOp(std::move(grids)), quantizer(quantizer), scale(scale) {}
  std::string_view name() const override { return quantizer; }
  Tensors vjp(const Vjp& v) const override;
  Saved saved() const override { return {.inputs = {0, 1}}; }
};
/// The gradient of the step from the sums over the three parts of the grid.
Tensor step_gradient(const RoundedGradients& sums, const Grid& codes);

/// What a surrogate needs to know about the sample point: where it lies, and code and p there.
struct RoundedPoint {
  Tensor inside, above;  ///< 1 or 0
  Tensor code, position;
};
RoundedPoint rounded_at(const Array& x, const Array& scale, const Grid& codes);

}  // namespace stairgrad::quant
