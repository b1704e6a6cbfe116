// y = exp(x) / sum(exp(x)). vjp: y (u - sum(u y)).
#include "../axes.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Softmax final : Op {
  std::string_view name() const override { return "softmax"; }
  Arrays forward(const Arrays& in) const override { return {kernels::softmax(in[0])}; }
  Tensors vjp(const Vjp& v) const override {
    const Tensor y = v.output(), share = v.grad() * y;
    return {share - y * sum(share, {-1}, /*keep_axes=*/true)};
  }
  Saved saved() const override { return {.outputs = {0}}; }
};

}  // namespace

Tensor softmax(const Tensor& x, const Axes& axes) {
  const Axes over = resolve_axes("softmax", axes, x.rank());
  if (over == Axes{x.rank() - 1}) return apply_op(Softmax{}, {x});
  return from_rows(apply_op(Softmax{}, {to_rows(x, over)}), x.shape(), over);
}

std::vector<Sample> softmax_samples() {
  const Tensor x = sample_tensor({2, 3, 4});
  return {{"(2,3,4) last", [](const Tensors& t) { return softmax(t[0]); }, {x}},
          {"(2,3,4) axes 0,1",
           [](const Tensors& t) {
             return softmax(t[0], {0, 1});
           },
           {x}},
          {"(3,1)", [](const Tensors& t) { return softmax(t[0]); }, {sample_tensor({3, 1})}},
          {"(0,3)", [](const Tensors& t) { return softmax(t[0]); }, {sample_tensor({0, 3})}}};
}

}  // namespace stairgrad
