// y = 1 / (1 + exp(-x)). vjp: u y (1 - y).
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Sigmoid final : Op {
  std::string_view name() const override { return "sigmoid"; }
  Arrays forward(const Arrays& in) const override { return {kernels::unary(kernels::Unary::sigmoid, in[0])}; }
  Tensors vjp(const Vjp& v) const override {
    const Tensor y = v.output();
    return {v.grad() * (y * (1 - y))};
  }
  Saved saved() const override { return {.outputs = {0}}; }
};

}  // namespace

Tensor sigmoid(const Tensor& x) { return apply_op(Sigmoid{}, {x}); }

std::vector<Sample> sigmoid_samples() {
  const auto f = [](const Tensors& t) { return sigmoid(t[0]); };
  return {{"(3,4)", f, {sample_tensor({3, 4})}},
          {"(1)", f, {sample_tensor({1}, 1)}},
          {"(0,3)", f, {sample_tensor({0, 3})}}};
}

}  // namespace stairgrad
