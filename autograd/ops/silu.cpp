// y = x sigmoid(x).
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {

Tensor silu(const Tensor& x) { return x * sigmoid(x); }

std::vector<Sample> silu_samples() {
  return {{"(3,4)", [](const Tensors& t) { return silu(t[0]); }, {sample_tensor({3, 4})}}};
}

}  // namespace stairgrad
