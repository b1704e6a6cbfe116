// y = round(x), with the straight-through gradient u: the second derivative is exactly zero.
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct RoundSte final : Op {
  std::string_view name() const override { return "round_ste"; }
  Arrays forward(const Arrays& in) const override { return {kernels::unary(kernels::Unary::round, in[0])}; }
  Tensors vjp(const Vjp& v) const override { return {v.grad()}; }
};

}  // namespace

Tensor round_ste(const Tensor& x) { return apply_op(RoundSte{}, {x}); }

std::vector<Sample> round_ste_samples() {
  Sample sample{"(3,4)", [](const Tensors& t) { return round_ste(t[0]); }, {sample_distinct({3, 4})}};
  sample.smooth = false;
  return {sample};
}

}  // namespace stairgrad
