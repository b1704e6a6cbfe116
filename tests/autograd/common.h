// What several tests of the room use.
#pragma once

#include <cmath>

#include "../../autograd/grad.h"
#include "../../kernels/random.h"
#include "../../kernels/threads.h"

namespace stairgrad {

/// A number of threads while it lives.
class ThreadsScope {
 public:
  explicit ThreadsScope(int count) : previous_(threads()) { set_threads(count); }
  ~ThreadsScope() { set_threads(previous_); }

 private:
  int previous_;
};

/// The same values as leaves of another type.
inline Tensors leaves_of(const Tensors& tensors, DType dtype) {
  Tensors result;
  for (const Tensor& t : tensors) result.push_back(Tensor::leaf(cast(t.value(), dtype).clone()));
  return result;
}

/// The function's value, then its gradients for a cotangent that `seed` fixes.
inline Arrays value_and_gradients(const TensorFunction& function, const Tensors& inputs, uint64_t seed) {
  const Tensor y = function(inputs);
  Arrays result = {y.value()};
  if (!y.requires_grad()) return result;
  const Tensor cotangent = random_normal(y.shape(), Philox(seed), 1, y.dtype());
  for (const Tensor& g : grad({y}, inputs, {.grad_outputs = {cotangent}, .allow_unused = true}))
    result.push_back(g.value());
  return result;
}

/// Largest difference relative to the largest value.
inline double difference(const Array& got, const Array& expected) {
  const std::vector<double> a = got.to_vector(), b = expected.to_vector();
  if (got.shape() != expected.shape()) return HUGE_VAL;
  double error = 0, largest = 1e-30;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) || std::isnan(b[i])) return HUGE_VAL;
    error = std::max(error, std::abs(a[i] - b[i]));
    largest = std::max(largest, std::abs(b[i]));
  }
  return error / largest;
}

}  // namespace stairgrad
