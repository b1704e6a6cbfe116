// y = x as a constant: no gradient flows.
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct StopGrad final : Op {
  std::string_view name() const override { return "stop_grad"; }
  Arrays forward(const Arrays& in) const override { return in; }
  bool differentiable(int) const override { return false; }
};

}  // namespace

Tensor stop_grad(const Tensor& x) { return apply_op(StopGrad{}, {x}); }

std::vector<Sample> stop_grad_samples() {
  Sample sample{"(3,4)", [](const Tensors& t) { return t[0] * stop_grad(t[0]); }, {sample_tensor({3, 4})}};
  sample.smooth = false;
  return {sample};
}

}  // namespace stairgrad
