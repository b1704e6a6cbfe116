// Joins tensors along an axis.
#pragma once

#include "../op.h"

namespace stairgrad {

struct ConcatOp final : Op {
  int axis;  ///< from 0

  explicit ConcatOp(int axis) : axis(axis) {}
  std::string_view name() const override { return "concat"; }
  Arrays forward(const Arrays& in) const override;
  Tensors vjp(const Vjp& v) const override;
};

}  // namespace stairgrad
