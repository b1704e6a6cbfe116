// Limits: clamp, hardtanh and relu6.
#pragma once

#include "../op.h"

namespace stairgrad {

/// x limited to [low, high]. The gradient passes at the bounds if closed.
struct ClampOp final : Op {
  double low, high;
  bool closed;

  ClampOp(double low, double high, bool closed) : low(low), high(high), closed(closed) {}
  std::string_view name() const override { return closed ? "clamp" : "hardtanh"; }
  Arrays forward(const Arrays& in) const override;
  Tensors vjp(const Vjp& v) const override;
  Saved saved() const override { return {.inputs = {0}}; }
};

}  // namespace stairgrad
