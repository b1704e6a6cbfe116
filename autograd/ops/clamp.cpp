// y = x limited to [low, high]. vjp: u inside the bounds; at the bounds clamp passes it (as PyTorch) and
// hardtanh and relu6 do not (likewise).
#include "clamp.h"

#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {

Arrays ClampOp::forward(const Arrays& in) const { return {kernels::clamp(in[0], low, high)}; }

Tensors ClampOp::vjp(const Vjp& v) const { return {pass_inside(v.grad(), v.input(0), low, high, closed)}; }

namespace {

Tensor limited(const Tensor& x, double low, double high, bool closed) {
  const ClampOp op(low, high, closed);
  check(low <= high, "[", op.name(), "] got the bounds ", low, " and ", high, ", expected low <= high");
  return apply_op(op, {x});
}

}  // namespace

Tensor clamp(const Tensor& x, double low, double high) { return limited(x, low, high, true); }
Tensor hardtanh(const Tensor& x, double low, double high) { return limited(x, low, high, false); }
Tensor relu6(const Tensor& x) { return hardtanh(x, 0, 6); }

std::vector<Sample> clamp_samples() {
  const Tensor x = sample_distinct({5, 7});
  return {{"clamp (5,7) -0.3 0.5", [](const Tensors& t) { return clamp(t[0], -0.3, 0.5); }, {x}},
          {"hardtanh (5,7) -0.3 0.5", [](const Tensors& t) { return hardtanh(t[0], -0.3, 0.5); }, {x}},
          {"relu6 (5,7)", [](const Tensors& t) { return relu6(t[0] * 10); }, {x}},
          {"clamp (0,3)", [](const Tensors& t) { return clamp(t[0], 0, 1); }, {sample_tensor({0, 3})}}};
}

}  // namespace stairgrad
