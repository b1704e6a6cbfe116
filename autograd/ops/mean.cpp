// Mean over axes: the sum over the number of elements.
#include "../axes.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {

Tensor mean(const Tensor& x, const Axes& axes, bool keep_axes) {
  const Tensor total = sum(x, axes, keep_axes);
  return total * (static_cast<double>(total.size()) / static_cast<double>(x.size()));
}

std::vector<Sample> mean_samples() {
  return {{"(2,3,4) all", [](const Tensors& t) { return mean(t[0]); }, {sample_tensor({2, 3, 4})}},
          {"(2,3,4) axes 0,2",
           [](const Tensors& t) {
             return mean(t[0], {0, 2}, true);
           },
           {sample_tensor({2, 3, 4})}},
          {"(1) all", [](const Tensors& t) { return mean(t[0]); }, {sample_tensor({1})}}};
}

}  // namespace stairgrad
