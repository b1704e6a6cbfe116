// y = -x. vjp: -u.
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Neg final : Op {
  std::string_view name() const override { return "neg"; }
  Arrays forward(const Arrays& in) const override { return {kernels::unary(kernels::Unary::neg, in[0])}; }
  Tensors vjp(const Vjp& v) const override { return {-v.grad()}; }
};

}  // namespace

Tensor neg(const Tensor& x) { return apply_op(Neg{}, {x}); }

std::vector<Sample> neg_samples() {
  const auto f = [](const Tensors& t) { return neg(t[0]); };
  return {{"(3,4)", f, {sample_tensor({3, 4})}},
          {"(1)", f, {sample_tensor({1}, 1)}},
          {"(0,3)", f, {sample_tensor({0, 3})}}};
}

}  // namespace stairgrad
