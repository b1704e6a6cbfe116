#include "ranges.h"

#include <algorithm>
#include <cmath>

#include "../../autograd/ops.h"

namespace stairgrad::quant {

Grid symmetric_grid(double u, int bits) {
  const int n = intervals(bits, true);
  const auto scale = static_cast<float>(std::max(2 * u, smallest_range) / n);
  if (bits == 8) return {scale, 0, -127, 127};
  return {scale, static_cast<float>(n) / 2, 0, n};
}

Grid zero_grid(double l, double u, int bits) {
  const int n = intervals(bits, false);
  const double step = std::max(u - l, smallest_range) / n;
  const double zero_point = std::clamp(std::nearbyint(-l / step), 0.0, static_cast<double>(n));
  return {static_cast<float>(step), static_cast<float>(zero_point), 0, n};
}

std::vector<Statistics> statistics(const Array& x, int64_t groups) {
  const std::vector<double> data = x.to_vector();
  const auto count = static_cast<std::ptrdiff_t>(x.size() / groups);
  std::vector<Statistics> all;
  for (auto begin = data.begin(); begin != data.end(); begin += count) {
    const auto end = begin + count;
    Statistics s;
    const auto [min, max] = std::minmax_element(begin, end);
    s.min = *min;
    s.max = *max;
    for (auto value = begin; value != end; ++value) {
      s.mean += *value;
      s.mean_abs += std::abs(*value);
    }
    s.mean /= static_cast<double>(count);
    s.mean_abs /= static_cast<double>(count);
    for (auto value = begin; value != end; ++value) s.deviation += (*value - s.mean) * (*value - s.mean);
    s.deviation = std::sqrt(s.deviation / static_cast<double>(count));
    all.push_back(s);
  }
  return all;
}

Tensor spread(const Tensor& parameter, int rank) {
  if (parameter.size() == 1) return parameter;
  std::vector<int64_t> extents(static_cast<size_t>(rank), 1);
  extents[0] = parameter.size();
  return reshape(parameter, Shape(extents));
}

}  // namespace stairgrad::quant
