// y = x^2. vjp: 2 u x.
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Square final : Op {
  std::string_view name() const override { return "square"; }
  Arrays forward(const Arrays& in) const override { return {kernels::unary(kernels::Unary::square, in[0])}; }
  Tensors vjp(const Vjp& v) const override { return {v.grad() * v.input(0) * 2}; }
  Saved saved() const override { return {.inputs = {0}}; }
};

}  // namespace

Tensor square(const Tensor& x) { return apply_op(Square{}, {x}); }

std::vector<Sample> square_samples() {
  const auto f = [](const Tensors& t) { return square(t[0]); };
  return {{"(3,4)", f, {sample_tensor({3, 4})}},
          {"(1)", f, {sample_tensor({1}, 1)}},
          {"(0,3)", f, {sample_tensor({0, 3})}}};
}

}  // namespace stairgrad
