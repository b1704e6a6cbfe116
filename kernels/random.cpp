#include "random.h"

#include <algorithm>
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

double RandomSequence::gamma(double shape) {
  check(shape > 0, "[gamma] got shape = ", shape, ", expected > 0");
  if (shape < 1) return gamma(shape + 1) * std::pow(uniform() + 0x1p-54, 1 / shape);
  const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double x = normal(), v = std::pow(1 + c * x, 3);
    if (v > 0 && std::log(uniform() + 0x1p-54) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

double RandomSequence::beta(double alpha) {
  check(alpha > 0, "[beta] got alpha = ", alpha, ", expected > 0");
  for (;;) {  // in logarithms, as u^(1/alpha) underflows for small alpha
    const double u = std::log(1 - uniform()) / alpha, v = std::log(1 - uniform()) / alpha;
    const double top = std::max(u, v), sum = top + std::log(std::exp(u - top) + std::exp(v - top));
    if (sum <= 0) return std::exp(u - sum);
  }
}

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
