#include "random.h"

#include <numeric>

namespace stairgrad {
namespace {

template <class Draw>
Array fill(Shape shape, DType dtype, Draw&& draw) {
  Array result(shape, dtype);
  dispatch_floating(dtype, [&](auto zero) {
    using T = decltype(zero);
    T* out = result.data<T>();
    for (int64_t i = 0; i < result.size(); ++i) out[i] = static_cast<T>(draw(static_cast<uint64_t>(i)));
  });
  return result;
}

}  // namespace

Array random_normal(Shape shape, Philox rng, double scale, DType dtype) {
  return fill(shape, dtype, [&](uint64_t i) { return scale * rng.normal(i); });
}

Array random_uniform(Shape shape, Philox rng, double low, double high, DType dtype) {
  return fill(shape, dtype, [&](uint64_t i) { return low + (high - low) * rng.uniform(i); });
}

std::vector<int64_t> random_permutation(int64_t n, Philox rng) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.below(i, i)]);
  return order;
}

}  // namespace stairgrad
