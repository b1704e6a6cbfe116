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

std::vector<double> floors(const std::vector<double>& first, double smallest) {
  std::vector<double> least;
  for (const double value : first) least.push_back(std::max(1e-3 * value, smallest));
  return least;
}

std::vector<double> raised(std::vector<double> values, const Array& least) {
  const std::vector<double> floor = least.to_vector();
  for (size_t g = 0; g < values.size(); ++g) values[g] = std::max(values[g], floor[g]);
  return values;
}

std::vector<Statistics> statistics(const Array& x, int64_t groups) {
  const std::vector<double> data = x.to_vector();
  const size_t size = data.size() / static_cast<size_t>(groups);
  std::vector<Statistics> all;
  for (size_t first = 0; first < data.size(); first += size) {
    std::vector<double> slice(data.data() + first, data.data() + first + size);
    std::erase_if(slice, [](double value) { return !std::isfinite(value); });
    all.emplace_back();
    if (slice.empty()) continue;
    Statistics& s = all.back();
    const auto count = static_cast<double>(slice.size());
    s.min = *std::min_element(slice.begin(), slice.end());
    s.max = *std::max_element(slice.begin(), slice.end());
    for (const double value : slice) {
      s.mean += value;
      s.mean_abs += std::abs(value);
    }
    s.mean /= count;
    s.mean_abs /= count;
    for (const double value : slice) s.deviation += (value - s.mean) * (value - s.mean);
    s.deviation = std::sqrt(s.deviation / count);
  }
  return all;
}

Ranges initial_ranges(const std::string& init, const Array& x, int64_t groups, int bits, bool symmetric) {
  if (init == "mse") {
    const auto observer = make_observer("mse", {.bits = bits, .symmetric = symmetric, .groups = groups});
    observer->observe(x);
    return observer->ranges();
  }
  const bool all = bits == 8 || init == "extremes";
  Ranges ranges;
  for (const Statistics& s : statistics(x, groups)) {
    if (symmetric) {
      const double u = all ? s.max_abs() : std::min(3 * s.deviation, s.max_abs());
      ranges.push_back({-u, u});
    } else if (s.min < 0) {
      ranges.push_back({std::min(0.0, all ? s.min : std::max(s.mean - 3 * s.deviation, s.min)),
                        std::max(0.0, all ? s.max : std::min(s.mean + 3 * s.deviation, s.max))});
    } else {  // half-normal data: its deviation is that of the whole times sqrt(1 - 2 / pi)
      ranges.push_back({0, all ? s.max : std::min(3 * s.deviation / std::sqrt(1 - 2 / M_PI), s.max)});
    }
  }
  return ranges;
}

SettingRule init_rule() { return SettingRule::choice("init", {"deviations", "extremes", "mse"}); }

Tensor standardise(const Tensor& x, int64_t groups) {
  const Tensor slices = reshape(x, {groups, x.size() / groups});
  const int64_t correction = slices.dim(1) > 1 ? 1 : 0;
  const Tensor deviation = sqrt(var(slices, {1}, true, correction) + smallest_range * smallest_range);
  return reshape((slices - mean(slices, {1}, true)) / deviation, x.shape());
}

Tensor spread(const Tensor& parameter, int rank) {
  if (parameter.size() == 1) return parameter;
  std::vector<int64_t> extents(static_cast<size_t>(rank), 1);
  extents[0] = parameter.size();
  return reshape(parameter, Shape(extents));
}

}  // namespace stairgrad::quant
