// y = tanh(x). vjp: u (1 - y^2).
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Tanh final : Op {
  std::string_view name() const override { return "tanh"; }
  Arrays forward(const Arrays& in) const override { return {kernels::unary(kernels::Unary::tanh, in[0])}; }
  Tensors vjp(const Vjp& v) const override {
    const Tensor y = v.output();
    return {v.grad() * (1 - y * y)};
  }
  Saved saved() const override { return {.outputs = {0}}; }
};

}  // namespace

Tensor tanh(const Tensor& x) { return apply_op(Tanh{}, {x}); }

std::vector<Sample> tanh_samples() {
  return {{"(3,4)", [](const Tensors& t) { return tanh(t[0]); }, {sample_tensor({3, 4})}}};
}

}  // namespace stairgrad
