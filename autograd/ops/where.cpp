// y = condition != 0 ? a : b, with broadcasting. vjp: u where a was taken, u where b was; the condition is a
// constant.
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Where final : Op {
  std::string_view name() const override { return "where"; }
  Arrays forward(const Arrays& in) const override { return {kernels::where(in[0], in[1], in[2])}; }
  Tensors vjp(const Vjp& v) const override {
    const Tensor u = v.grad(), &condition = v.input(0), zero(0, u.dtype());
    return {v.needs(0) ? Array::zeros(u.shape(), u.dtype()) : Tensor(),
            v.needs(1) ? where(condition, u, zero) : Tensor(),
            v.needs(2) ? where(condition, zero, u) : Tensor()};
  }
  Saved saved() const override { return {.inputs = {0}}; }
};

}  // namespace

Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) {
  const Shape shape =
      kernels::broadcast_shape(condition.shape(), kernels::broadcast_shape(a.shape(), b.shape()));
  return apply_op(Where{}, {broadcast_to(condition, shape), broadcast_to(a, shape), broadcast_to(b, shape)});
}

std::vector<Sample> where_samples() {
  const auto f = [](const Tensors& t) { return where(greater(t[0], Tensor(0, t[0].dtype())), t[1], t[2]); };
  return {{"(3,4)", f, {sample_distinct({3, 4}), sample_tensor({3, 4}, 1), sample_tensor({3, 4}, 2)}},
          {"(3,1) (3,4) ()", f, {sample_distinct({3, 1}), sample_tensor({3, 4}, 1), sample_tensor({}, 2)}}};
}

}  // namespace stairgrad
