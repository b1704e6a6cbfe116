// Sum over axes, and its adjoint, broadcast: each is the other's vjp.
#include "../../kernels/elementwise.h"
#include "../axes.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Sum final : Op {
  Axes axes;

  explicit Sum(Axes axes) : axes(std::move(axes)) {}
  std::string_view name() const override { return "sum"; }
  Arrays forward(const Arrays& in) const override {
    return {kernels::reduce(kernels::Reduction::sum, in[0], axes, /*keep_axes=*/true)};
  }
  Tensors vjp(const Vjp& v) const override { return {broadcast_to(v.grad(), v.input_shape(0))}; }
};

struct Broadcast final : Op {
  Shape shape;

  explicit Broadcast(const Shape& shape) : shape(shape) {}
  std::string_view name() const override { return "broadcast_to"; }
  Arrays forward(const Arrays& in) const override { return {kernels::broadcast_to(in[0], shape)}; }
  Tensors vjp(const Vjp& v) const override { return {sum_to(v.grad(), v.input_shape(0))}; }
};

}  // namespace

Tensor sum(const Tensor& x, const Axes& axes, bool keep_axes) {
  const Axes over = resolve_axes("sum", axes, x.rank());
  if (over.empty()) return x;
  const Tensor total = apply_op(Sum{over}, {x});
  return keep_axes ? total : reshape(total, without_axes(x.shape(), over));
}

Tensor broadcast_to(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  return apply_op(Broadcast{shape}, {x});
}

Tensor sum_to(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  check(kernels::broadcast_shape(x.shape(), shape) == x.shape(), "[sum_to] got the shape ", shape,
        ", which does not broadcast to ", x.shape());
  Axes axes;
  const int missing = x.rank() - shape.rank();
  for (int i = 0; i < x.rank(); ++i)
    if (i < missing || shape[i - missing] != x.dim(i)) axes.push_back(i);
  return reshape(sum(x, axes, /*keep_axes=*/true), shape);
}

std::vector<Sample> sum_samples() {
  const Tensor x = sample_tensor({2, 3, 4});
  return {
      {"sum (2,3,4) all", [](const Tensors& t) { return sum(t[0]); }, {x}},
      {"sum (2,3,4) axes 0,2",
       [](const Tensors& t) {
         return sum(t[0], {0, -1});
       },
       {x}},
      {"sum (0,3) axis 0", [](const Tensors& t) { return sum(t[0], {0}); }, {sample_tensor({0, 3})}},
      {"broadcast (3,1) to (2,3,4)",
       [](const Tensors& t) {
         return broadcast_to(t[0], {2, 3, 4});
       },
       {sample_tensor({3, 1})}},
      {"sum_to (2,3,4) to (3,1)",
       [](const Tensors& t) {
         return sum_to(t[0], {3, 1});
       },
       {x}},
      {"sum_to (1,3) to (3)", [](const Tensors& t) { return sum_to(t[0], {3}); }, {sample_tensor({1, 3})}}};
}

}  // namespace stairgrad
