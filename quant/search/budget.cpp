#include "budget.h"

#include <cmath>

#include "../../autograd/ops.h"

namespace stairgrad::quant {

Budget::Budget(int64_t bops, double stiffness, double rate)
    : bops_(bops), stiffness_(stiffness), rate_(rate), multiplier_(Array::scalar(0, DType::f64)) {
  check(bops > 0, "[search] got a budget of ", bops, " BOPs, expected it positive");
}

Tensor Budget::penalty(const Tensor& expected_bops) const {
  const Tensor r = log(expected_bops / static_cast<double>(bops_));
  return r * multiplier() + square(r) * (stiffness_ / 2);
}

void Budget::update(double expected_bops) {
  multiplier_.data<double>()[0] += rate_ * std::log(expected_bops / static_cast<double>(bops_));
}

}  // namespace stairgrad::quant
