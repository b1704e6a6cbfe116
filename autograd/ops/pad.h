// A constant border around a tensor.
#pragma once

#include "../op.h"

namespace stairgrad {

struct PadOp final : Op {
  std::vector<int64_t> before, after;  ///< elements, one an axis
  double value;

  PadOp(std::vector<int64_t> before, std::vector<int64_t> after, double value)
      : before(std::move(before)), after(std::move(after)), value(value) {}
  std::string_view name() const override { return "pad"; }
  Arrays forward(const Arrays& in) const override;
  Tensors vjp(const Vjp& v) const override;
};

}  // namespace stairgrad
