// y = x rounded to an integer, half to even. Its derivative is zero.
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Round final : Op {
  std::string_view name() const override { return "round"; }
  Arrays forward(const Arrays& in) const override { return {kernels::unary(kernels::Unary::round, in[0])}; }
  Tensors vjp(const Vjp& v) const override { return {Array::zeros(v.input_shape(0), v.input_dtype(0))}; }
};

}  // namespace

Tensor round(const Tensor& x) { return apply_op(Round{}, {x}); }

std::vector<Sample> round_samples() {
  const auto f = [](const Tensors& t) { return round(t[0]); };
  return {{"(3,4)", f, {sample_distinct({3, 4})}},
          {"(5,7)", f, {sample_distinct({5, 7})}},
          {"(1)", f, {sample_distinct({1}, 1)}},
          {"(0,3)", f, {sample_distinct({0, 3})}}};
}

}  // namespace stairgrad
