// y = a / b with broadcasting. vjp: (u / b, -u y / b), each summed to its input's shape.
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Div final : Op {
  std::string_view name() const override { return "div"; }
  Arrays forward(const Arrays& in) const override {
    return {kernels::binary(kernels::Binary::div, in[0], in[1])};
  }
  Tensors vjp(const Vjp& v) const override {
    const Tensor share = v.grad() / v.input(1);
    return {v.needs(0) ? sum_to(share, v.input_shape(0)) : Tensor(),
            v.needs(1) ? -sum_to(share * v.output(), v.input_shape(1)) : Tensor()};
  }
  Saved saved() const override { return {.inputs = {1}, .outputs = {0}}; }
};

}  // namespace

Tensor div(const Tensor& a, const Tensor& b) { return apply_op(Div{}, {a, b}); }

std::vector<Sample> div_samples() {
  const auto f = [](const Tensors& t) { return div(t[0], t[1]); };
  return {{"(3,4) (3,4)", f, {sample_tensor({3, 4}, 1), sample_positive({3, 4}, 2)}},
          {"(2,3,4) (4)", f, {sample_tensor({2, 3, 4}, 1), sample_positive({4}, 2)}},
          {"(3,1) (2,1,4)", f, {sample_tensor({3, 1}, 1), sample_positive({2, 1, 4}, 2)}}};
}

}  // namespace stairgrad
