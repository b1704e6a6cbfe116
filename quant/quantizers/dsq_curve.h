// DSQ's curve as an op: values on a grid, gradients of the soft function on [l, u] (dsq.h).
#pragma once

#include "../quantizer.h"

namespace stairgrad::quant {

/// Inputs x, alpha, l, u, the last three with one value for each grid. The grids say how many intervals [l,
/// u] has; their levels need not lie in it.
struct DsqOp final : QuantizeOp {
  bool soft;     // dQ/dl and dQ/du take Q's code from phi instead of the hard one
  double scale;  // of the gradients of alpha, l and u

  DsqOp(Grids grids, bool soft, double scale) : QuantizeOp(std::move(grids)), soft(soft), scale(scale) {}
  std::string_view name() const override { return "dsq"; }
  Tensors vjp(const Vjp& v) const override;
  Saved saved() const override { return {.inputs = {0, 1, 2, 3}}; }
};

/// The soft function of {x, alpha, l, u} with n intervals, moved in each cell so that at the sample point
/// `at` it is the hard one: what the op's backward is the derivative of. With `soft` it is not moved.
Tensor dsq_surrogate(const Tensors& in, const Tensors& at, int n, bool soft);

}  // namespace stairgrad::quant
