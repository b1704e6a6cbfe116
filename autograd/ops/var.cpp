// Variance over axes: the sum of squared deviations over (count - correction).
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {

Tensor var(const Tensor& x, const Axes& axes, bool keep_axes, int64_t correction) {
  const Tensor squares = sum(square(x - mean(x, axes, /*keep_axes=*/true)), axes, keep_axes);
  const int64_t count = x.size() / std::max<int64_t>(1, squares.size());
  check(count > correction, "[var] got ", count, " elements with the correction ", correction);
  return squares / static_cast<double>(count - correction);
}

std::vector<Sample> var_samples() {
  const Tensor x = sample_tensor({2, 3, 4});
  return {{"(2,3,4) all", [](const Tensors& t) { return var(t[0]); }, {x}},
          {"(2,3,4) axes 0,2 corrected",
           [](const Tensors& t) {
             return var(t[0], {0, 2}, true, 1);
           },
           {x}},
          {"(1)", [](const Tensors& t) { return var(t[0]); }, {sample_tensor({1})}}};
}

}  // namespace stairgrad
