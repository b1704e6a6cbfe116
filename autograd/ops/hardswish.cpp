// y = x relu6(x + 3) / 6. At -3 and 3 the derivative is that of relu6: 0 for the second factor.
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {

Tensor hardswish(const Tensor& x) { return x * relu6(x + 3) / 6; }

std::vector<Sample> hardswish_samples() {
  return {{"(5,7)", [](const Tensors& t) { return hardswish(t[0] * 5); }, {sample_distinct({5, 7})}}};
}

}  // namespace stairgrad
