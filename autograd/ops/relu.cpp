// y = max(x, 0). vjp: u where y > 0; at 0 the derivative is 0.
#include <cmath>

#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Relu final : Op {
  std::string_view name() const override { return "relu"; }
  Arrays forward(const Arrays& in) const override { return {kernels::unary(kernels::Unary::relu, in[0])}; }
  Tensors vjp(const Vjp& v) const override {
    return {pass_inside(v.grad(), v.output(), 0, HUGE_VAL, /*closed=*/false)};
  }
  Saved saved() const override { return {.outputs = {0}}; }
};

}  // namespace

Tensor relu(const Tensor& x) { return apply_op(Relu{}, {x}); }

std::vector<Sample> relu_samples() {
  const auto f = [](const Tensors& t) { return relu(t[0]); };
  return {{"(3,4)", f, {sample_distinct({3, 4})}},
          {"(5,7)", f, {sample_distinct({5, 7})}},
          {"(1)", f, {sample_distinct({1}, 1)}},
          {"(0,3)", f, {sample_distinct({0, 3})}}};
}

}  // namespace stairgrad
