// y = 1 / sqrt(x). vjp: -u y^3 / 2.
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Rsqrt final : Op {
  std::string_view name() const override { return "rsqrt"; }
  Arrays forward(const Arrays& in) const override { return {kernels::unary(kernels::Unary::rsqrt, in[0])}; }
  Tensors vjp(const Vjp& v) const override {
    const Tensor y = v.output();
    return {v.grad() * (y * y * y) * -0.5};
  }
  Saved saved() const override { return {.outputs = {0}}; }
};

}  // namespace

Tensor rsqrt(const Tensor& x) { return apply_op(Rsqrt{}, {x}); }

std::vector<Sample> rsqrt_samples() {
  const auto f = [](const Tensors& t) { return rsqrt(t[0]); };
  return {{"(3,4)", f, {sample_positive({3, 4})}},
          {"(1)", f, {sample_positive({1}, 1)}},
          {"(0,3)", f, {sample_positive({0, 3})}}};
}

}  // namespace stairgrad
