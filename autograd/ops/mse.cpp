// Mean squared difference.
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {

Tensor mse(const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape(), "[mse] got the shapes ", a.shape(), " and ", b.shape(),
        ", expected equal ones");
  return mean(square(a - b));
}

std::vector<Sample> mse_samples() {
  return {{"(3,4)",
           [](const Tensors& t) { return mse(t[0], t[1]); },
           {sample_tensor({3, 4}, 1), sample_tensor({3, 4}, 2)}}};
}

}  // namespace stairgrad
