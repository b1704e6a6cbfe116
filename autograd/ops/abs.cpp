// y = |x|. vjp: u sign(x); at 0 the derivative is 0.
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Abs final : Op {
  std::string_view name() const override { return "abs"; }
  Arrays forward(const Arrays& in) const override { return {kernels::unary(kernels::Unary::abs, in[0])}; }
  Tensors vjp(const Vjp& v) const override { return {v.grad() * sign(v.input(0))}; }
  Saved saved() const override { return {.inputs = {0}}; }
};

}  // namespace

Tensor abs(const Tensor& x) { return apply_op(Abs{}, {x}); }

std::vector<Sample> abs_samples() {
  const auto f = [](const Tensors& t) { return abs(t[0]); };
  return {{"(3,4)", f, {sample_distinct({3, 4})}},
          {"(5,7)", f, {sample_distinct({5, 7})}},
          {"(1)", f, {sample_distinct({1}, 1)}},
          {"(0,3)", f, {sample_distinct({0, 3})}}};
}

}  // namespace stairgrad
