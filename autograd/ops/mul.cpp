// y = a b with broadcasting. vjp: (u b, u a), each summed to its input's shape.
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Mul final : Op {
  std::string_view name() const override { return "mul"; }
  Arrays forward(const Arrays& in) const override {
    return {kernels::binary(kernels::Binary::mul, in[0], in[1])};
  }
  Tensors vjp(const Vjp& v) const override {
    const Tensor u = v.grad();
    return {v.needs(0) ? sum_to(u * v.input(1), v.input_shape(0)) : Tensor(),
            v.needs(1) ? sum_to(u * v.input(0), v.input_shape(1)) : Tensor()};
  }
  Saved saved() const override { return {.inputs = {0, 1}}; }
};

}  // namespace

Tensor mul(const Tensor& a, const Tensor& b) { return apply_op(Mul{}, {a, b}); }

std::vector<Sample> mul_samples() {
  const auto f = [](const Tensors& t) { return mul(t[0], t[1]); };
  return {{"(3,4) (3,4)", f, {sample_tensor({3, 4}, 1), sample_tensor({3, 4}, 2)}},
          {"(2,3,4) (4)", f, {sample_tensor({2, 3, 4}, 1), sample_tensor({4}, 2)}},
          {"(3,1) (2,1,4)", f, {sample_tensor({3, 1}, 1), sample_tensor({2, 1, 4}, 2)}}};
}

}  // namespace stairgrad
