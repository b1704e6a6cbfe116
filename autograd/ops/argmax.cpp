// Index of the first largest element; it has no derivative.
#include "../axes.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Argmax final : Op {
  std::string_view name() const override { return "argmax"; }
  Arrays forward(const Arrays& in) const override { return {kernels::argmax(in[0])}; }
  bool differentiable(int) const override { return false; }
};

}  // namespace

Tensor argmax(const Tensor& x, int axis) {
  const Axes along = resolve_axes("argmax", {axis}, x.rank());
  check(x.dim(axis) > 0, "[argmax] got no elements along axis ", axis, " of ", x.shape());
  if (along[0] == x.rank() - 1) return apply_op(Argmax{}, {x});
  return reshape(apply_op(Argmax{}, {to_rows(x, along)}), without_axes(x.shape(), along));
}

std::vector<Sample> argmax_samples() {
  const auto f = [](int axis) {
    return [axis](const Tensors& t) { return one_hot(argmax(t[0], axis), 8, t[0].dtype()); };
  };
  return {{"(3,4) last", f(-1), {sample_distinct({3, 4})}},
          {"(2,3,4) axis 1", f(1), {sample_distinct({2, 3, 4})}},
          {"(0,3) last", f(-1), {sample_distinct({0, 3})}}};
}

}  // namespace stairgrad
