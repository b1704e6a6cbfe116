// y = log(x). vjp: u / x.
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Log final : Op {
  std::string_view name() const override { return "log"; }
  Arrays forward(const Arrays& in) const override { return {kernels::unary(kernels::Unary::log, in[0])}; }
  Tensors vjp(const Vjp& v) const override { return {v.grad() / v.input(0)}; }
  Saved saved() const override { return {.inputs = {0}}; }
};

}  // namespace

Tensor log(const Tensor& x) { return apply_op(Log{}, {x}); }

std::vector<Sample> log_samples() {
  const auto f = [](const Tensors& t) { return log(t[0]); };
  return {{"(3,4)", f, {sample_positive({3, 4})}},
          {"(1)", f, {sample_positive({1}, 1)}},
          {"(0,3)", f, {sample_positive({0, 3})}}};
}

}  // namespace stairgrad
