// y = x where x > 0, else slope x. Made of relu: at 0 the derivative is 0.
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {

Tensor leaky_relu(const Tensor& x, double slope) { return relu(x) - relu(-x) * slope; }

std::vector<Sample> leaky_relu_samples() {
  return {{"(3,4) 0.01", [](const Tensors& t) { return leaky_relu(t[0]); }, {sample_distinct({3, 4})}},
          {"(3,4) 0.3", [](const Tensors& t) { return leaky_relu(t[0], 0.3); }, {sample_distinct({3, 4})}}};
}

}  // namespace stairgrad
