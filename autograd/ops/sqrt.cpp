// y = sqrt(x). vjp: u / (2 y).
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Sqrt final : Op {
  std::string_view name() const override { return "sqrt"; }
  Arrays forward(const Arrays& in) const override { return {kernels::unary(kernels::Unary::sqrt, in[0])}; }
  Tensors vjp(const Vjp& v) const override { return {v.grad() / v.output() * 0.5}; }
  Saved saved() const override { return {.outputs = {0}}; }
};

}  // namespace

Tensor sqrt(const Tensor& x) { return apply_op(Sqrt{}, {x}); }

std::vector<Sample> sqrt_samples() {
  const auto f = [](const Tensors& t) { return sqrt(t[0]); };
  return {{"(3,4)", f, {sample_positive({3, 4})}},
          {"(1)", f, {sample_positive({1}, 1)}},
          {"(0,3)", f, {sample_positive({0, 3})}}};
}

}  // namespace stairgrad
