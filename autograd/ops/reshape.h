// Another shape of the same memory.
#pragma once

#include "../op.h"

namespace stairgrad {

struct ReshapeOp final : Op {
  Shape shape;

  explicit ReshapeOp(const Shape& shape) : shape(shape) {}
  std::string_view name() const override { return "reshape"; }
  Arrays forward(const Arrays& in) const override { return {in[0].reshape(shape)}; }
  Tensors vjp(const Vjp& v) const override;
};

}  // namespace stairgrad
