// y = x - log(sum(exp(x))). vjp: u - exp(y) sum(u).
#include "../axes.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct LogSoftmax final : Op {
  std::string_view name() const override { return "log_softmax"; }
  Arrays forward(const Arrays& in) const override { return {kernels::log_softmax(in[0])}; }
  Tensors vjp(const Vjp& v) const override {
    const Tensor u = v.grad();
    return {u - exp(v.output()) * sum(u, {-1}, /*keep_axes=*/true)};
  }
  Saved saved() const override { return {.outputs = {0}}; }
};

}  // namespace

Tensor log_softmax(const Tensor& x, const Axes& axes) {
  const Axes over = resolve_axes("log_softmax", axes, x.rank());
  if (over == Axes{x.rank() - 1}) return apply_op(LogSoftmax{}, {x});
  return from_rows(apply_op(LogSoftmax{}, {to_rows(x, over)}), x.shape(), over);
}

std::vector<Sample> log_softmax_samples() {
  const Tensor x = sample_tensor({2, 3, 4});
  return {{"(2,3,4) last", [](const Tensors& t) { return log_softmax(t[0]); }, {x}},
          {"(2,3,4) axes 0,1",
           [](const Tensors& t) {
             return log_softmax(t[0], {0, 1});
           },
           {x}},
          {"(3,1)", [](const Tensors& t) { return log_softmax(t[0]); }, {sample_tensor({3, 1})}},
          {"(0,3)", [](const Tensors& t) { return log_softmax(t[0]); }, {sample_tensor({0, 3})}}};
}

}  // namespace stairgrad
