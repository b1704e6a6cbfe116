// y = a - b with broadcasting. vjp: (u, -u), each summed to its input's shape.
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Sub final : Op {
  std::string_view name() const override { return "sub"; }
  Arrays forward(const Arrays& in) const override {
    return {kernels::binary(kernels::Binary::sub, in[0], in[1])};
  }
  Tensors vjp(const Vjp& v) const override {
    const Tensor u = v.grad();
    return {v.needs(0) ? sum_to(u, v.input_shape(0)) : Tensor(),
            v.needs(1) ? -sum_to(u, v.input_shape(1)) : Tensor()};
  }
};

}  // namespace

Tensor sub(const Tensor& a, const Tensor& b) { return apply_op(Sub{}, {a, b}); }

std::vector<Sample> sub_samples() {
  const auto f = [](const Tensors& t) { return sub(t[0], t[1]); };
  return {{"(3,4) (3,4)", f, {sample_tensor({3, 4}, 1), sample_tensor({3, 4}, 2)}},
          {"(2,3,4) (4)", f, {sample_tensor({2, 3, 4}, 1), sample_tensor({4}, 2)}},
          {"(3,1) (2,1,4)", f, {sample_tensor({3, 1}, 1), sample_tensor({2, 1, 4}, 2)}}};
}

}  // namespace stairgrad
