// y = the largest integer not above x. Its derivative is zero.
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Floor final : Op {
  std::string_view name() const override { return "floor"; }
  Arrays forward(const Arrays& in) const override { return {kernels::unary(kernels::Unary::floor, in[0])}; }
  Tensors vjp(const Vjp& v) const override { return {Array::zeros(v.input_shape(0), v.input_dtype(0))}; }
};

}  // namespace

Tensor floor(const Tensor& x) { return apply_op(Floor{}, {x}); }

std::vector<Sample> floor_samples() {
  const auto f = [](const Tensors& t) { return floor(t[0]); };
  return {{"(3,4)", f, {sample_distinct({3, 4})}},
          {"(5,7)", f, {sample_distinct({5, 7})}},
          {"(1)", f, {sample_distinct({1}, 1)}},
          {"(0,3)", f, {sample_distinct({0, 3})}}};
}

}  // namespace stairgrad
