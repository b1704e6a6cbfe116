// The straight-through estimator (Bengio et al., 2013): values on a grid, gradients passed on where x lies in
// a range and dropped elsewhere.
#pragma once

#include "../observers.h"
#include "../quantizer.h"

namespace stairgrad::quant {

struct StraightThroughOp final : QuantizeOp {
  Ranges pass;  // one for each grid

  StraightThroughOp(Grids grids, Ranges pass) : QuantizeOp(std::move(grids)), pass(std::move(pass)) {}
  std::string_view name() const override { return "straight_through"; }
  Tensors vjp(const Vjp& v) const override;
  Saved saved() const override { return {.inputs = {0}}; }
};

/// Its surrogate.
Tensor straight_through_surrogate(const Tensor& x, const Array& at, const Grids& grids, const Ranges& pass);

/// Where values are rounded, not saturated: up to half a step beyond the levels.
Ranges rounded_range(const Grids& grids);
/// Everything but NaN.
Ranges everything(size_t grids);

}  // namespace stairgrad::quant
