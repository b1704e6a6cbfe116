#include "random.h"

#include <numeric>

#include "threads.h"

namespace stairgrad {
namespace {

// y[i] = draw(i, zero of the type).
template <class Draw>
Array fill(Shape shape, DType dtype, const Draw& draw) {
  Array result(shape, dtype);
  dispatch_floating(dtype, [&](auto zero) {
    using T = decltype(zero);
    T* out = result.data<T>();
    parallel_for(result.size(), 1 << 11, [&, out](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) out[i] = static_cast<T>(draw(static_cast<uint64_t>(i), zero));
    });
  });
  return result;
}

// The largest number below `value`.
double below(double value, double) { return std::nextafter(value, -HUGE_VAL); }
double below(double value, float) { return std::nextafter(static_cast<float>(value), -HUGE_VALF); }
double below(double value, bf16) {
  bf16 result(static_cast<float>(value));
  result.bits = static_cast<uint16_t>(value > 0 ? result.bits - 1 : value < 0 ? result.bits + 1 : 0x8001);
  return result;
}

}  // namespace

Array random_normal(Shape shape, Philox rng, double scale, DType dtype) {
  return fill(shape, dtype, [=](uint64_t i, auto) { return scale * rng.normal(i); });
}

Array random_uniform(Shape shape, Philox rng, double low, double high, DType dtype) {
  return fill(shape, dtype, [=]<class T>(uint64_t i, T zero) {
    const double value = low + (high - low) * rng.uniform(i);
    const auto rounded = static_cast<double>(static_cast<T>(value));
    return rounded < high ? value : below(rounded, zero);
  });
}

std::vector<int64_t> random_permutation(int64_t n, Philox rng) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.below(i, i)]);
  return order;
}

}  // namespace stairgrad
