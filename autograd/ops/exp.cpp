// y = exp(x). vjp: u y.
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Exp final : Op {
  std::string_view name() const override { return "exp"; }
  Arrays forward(const Arrays& in) const override { return {kernels::unary(kernels::Unary::exp, in[0])}; }
  Tensors vjp(const Vjp& v) const override { return {v.grad() * v.output()}; }
  Saved saved() const override { return {.outputs = {0}}; }
};

}  // namespace

Tensor exp(const Tensor& x) { return apply_op(Exp{}, {x}); }

std::vector<Sample> exp_samples() {
  const auto f = [](const Tensors& t) { return exp(t[0]); };
  return {{"(3,4)", f, {sample_tensor({3, 4})}},
          {"(1)", f, {sample_tensor({1}, 1)}},
          {"(0,3)", f, {sample_tensor({0, 3})}}};
}

}  // namespace stairgrad
