// y = log(1 + exp(x)). vjp: u sigmoid(x).
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Softplus final : Op {
  std::string_view name() const override { return "softplus"; }
  Arrays forward(const Arrays& in) const override {
    return {kernels::unary(kernels::Unary::softplus, in[0])};
  }
  Tensors vjp(const Vjp& v) const override { return {v.grad() * sigmoid(v.input(0))}; }
  Saved saved() const override { return {.inputs = {0}}; }
};

}  // namespace

Tensor softplus(const Tensor& x) { return apply_op(Softplus{}, {x}); }

std::vector<Sample> softplus_samples() {
  const auto f = [](const Tensors& t) { return softplus(t[0]); };
  return {{"(3,4)", f, {sample_tensor({3, 4})}},
          {"(1)", f, {sample_tensor({1}, 1)}},
          {"(0,3)", f, {sample_tensor({0, 3})}}};
}

}  // namespace stairgrad
