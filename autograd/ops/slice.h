// A strided box of a tensor.
#pragma once

#include "../../kernels/movement.h"
#include "../op.h"

namespace stairgrad {

struct SliceOp final : Op {
  std::vector<kernels::Range> ranges;  ///< one an axis

  explicit SliceOp(std::vector<kernels::Range> ranges) : ranges(std::move(ranges)) {}
  std::string_view name() const override { return "slice"; }
  Arrays forward(const Arrays& in) const override { return {kernels::slice(in[0], ranges)}; }
  Tensors vjp(const Vjp& v) const override;
};

}  // namespace stairgrad
