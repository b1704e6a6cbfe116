// The largest element over axes; ties: the first one. vjp: u at its place.
#include "../axes.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Max final : Op {
  Axes axes;

  explicit Max(Axes axes) : axes(std::move(axes)) {}
  std::string_view name() const override { return "max"; }
  Arrays forward(const Arrays& in) const override {
    return {kernels::reduce(kernels::Reduction::max, in[0], axes, /*keep_axes=*/true)};
  }
  Tensors vjp(const Vjp& v) const override {
    const Tensor x = v.input(0).detach(), rows = to_rows(x, axes);
    const Shape picked{rows.dim(0), 1};
    const Tensor places = reshape(argmax(rows), picked);
    return {from_rows(scatter_add(reshape(v.grad(), picked), places, rows.dim(1)), x.shape(), axes)};
  }
  Saved saved() const override { return {.inputs = {0}}; }
};

}  // namespace

Tensor max(const Tensor& x, const Axes& axes, bool keep_axes) {
  const Axes over = resolve_axes("max", axes, x.rank());
  if (over.empty()) return x;
  const Tensor y = apply_op(Max{over}, {x});
  return keep_axes ? y : reshape(y, without_axes(x.shape(), over));
}

std::vector<Sample> max_samples() {
  const Tensor x = sample_distinct({2, 3, 4});
  return {{"(2,3,4) all", [](const Tensors& t) { return max(t[0]); }, {x}},
          {"(2,3,4) axes 0,2",
           [](const Tensors& t) {
             return max(t[0], {0, 2});
           },
           {x}},
          {"(2,3,4) axis 1", [](const Tensors& t) { return max(t[0], {1}, true); }, {x}},
          {"(1)", [](const Tensors& t) { return max(t[0]); }, {sample_tensor({1})}}};
}

}  // namespace stairgrad
