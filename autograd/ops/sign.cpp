// y = -1, 0 or 1 by the sign of x. Its derivative is zero.
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Sign final : Op {
  std::string_view name() const override { return "sign"; }
  Arrays forward(const Arrays& in) const override { return {kernels::unary(kernels::Unary::sign, in[0])}; }
  Tensors vjp(const Vjp& v) const override { return {Array::zeros(v.input_shape(0), v.input_dtype(0))}; }
};

}  // namespace

Tensor sign(const Tensor& x) { return apply_op(Sign{}, {x}); }

std::vector<Sample> sign_samples() {
  const auto f = [](const Tensors& t) { return sign(t[0]); };
  return {{"(3,4)", f, {sample_distinct({3, 4})}},
          {"(5,7)", f, {sample_distinct({5, 7})}},
          {"(1)", f, {sample_distinct({1}, 1)}},
          {"(0,3)", f, {sample_distinct({0, 3})}}};
}

}  // namespace stairgrad
