#include "op_table.h"

#include "../kernels/random.h"

namespace stairgrad {

std::vector<Sample> add_samples();
std::vector<Sample> conv2d_samples();
std::vector<Sample> mul_samples();
std::vector<Sample> sum_samples();
std::vector<Sample> tanh_samples();

const std::vector<OpEntry>& op_table() {
  static const std::vector<OpEntry> table = {
      {"add", add_samples}, {"conv2d", conv2d_samples}, {"mul", mul_samples},
      {"sum", sum_samples}, {"tanh", tanh_samples},
  };
  return table;
}

Tensor sample_tensor(Shape shape, uint64_t stream, double scale) {
  return random_normal(shape, Philox(1, stream), scale, DType::f64);
}

Tensor sample_positive(Shape shape, uint64_t stream) {
  return random_uniform(shape, Philox(2, stream), 0.5, 2, DType::f64);
}

Tensor sample_distinct(Shape shape, uint64_t stream) {
  Array values(shape, DType::f64);
  const std::vector<int64_t> order = random_permutation(shape.size(), Philox(3, stream));
  for (size_t i = 0; i < order.size(); ++i)
    values.data<double>()[i] =
        (static_cast<double>(order[i]) - 0.5 * static_cast<double>(order.size()) + 0.37) * 0.05;
  return values;
}

}  // namespace stairgrad
