// y = u where x is inside the bounds, else 0. Linear in u: the vjp masks again; the mask itself has the
// derivative zero.
#include "../../kernels/mask.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct PassInside final : Op {
  double low, high;
  bool closed;

  PassInside(double low, double high, bool closed) : low(low), high(high), closed(closed) {}
  std::string_view name() const override { return "pass_inside"; }
  Arrays forward(const Arrays& in) const override {
    return {kernels::pass_inside(in[0], in[1], low, high, closed)};
  }
  Tensors vjp(const Vjp& v) const override {
    return {v.needs(0) ? pass_inside(v.grad(), v.input(1), low, high, closed) : Tensor(),
            v.needs(1) ? Array::zeros(v.input_shape(1), v.input_dtype(1)) : Tensor()};
  }
  Saved saved() const override { return {.inputs = {1}}; }
};

}  // namespace

Tensor pass_inside(const Tensor& u, const Tensor& x, double low, double high, bool closed) {
  check(u.shape() == x.shape(), "[pass_inside] got the shapes ", u.shape(), " and ", x.shape(),
        ", expected equal ones");
  return apply_op(PassInside{low, high, closed}, {u, x});
}

std::vector<Sample> pass_inside_samples() {
  const Tensors in = {sample_tensor({4, 5}, 1), sample_distinct({4, 5}, 2)};
  return {{"(4,5) open", [](const Tensors& t) { return pass_inside(t[0], t[1], -0.2, 0.3, false); }, in},
          {"(4,5) closed", [](const Tensors& t) { return pass_inside(t[0], t[1], -0.2, 0.3, true); }, in}};
}

}  // namespace stairgrad
