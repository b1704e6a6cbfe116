#include "adaround.h"

#include <algorithm>
#include <cmath>

namespace stairgrad::quant {
namespace {

constexpr double zeta = 1.1, gamma = -0.1;

}  // namespace

Tensor rectified_sigmoid(const Tensor& v) { return clamp(sigmoid(v) * (zeta - gamma) + gamma, 0, 1); }

Tensor rounding_regulariser(const Tensor& h, double beta) { return sum(1 - pow(abs(2 * h - 1), beta)); }

double BetaSchedule::beta(int64_t t, int64_t steps) const {
  if (warming_up(t, steps)) return start;
  const double first = warmup * static_cast<double>(steps),
               left = std::max(1.0, static_cast<double>(steps) - first);
  return end + (start - end) * std::max(0.0, 1 - (static_cast<double>(t) - first) / left);
}

Rounding::Rounding(const Array& weights, const Grids& grids, const std::string& name)
    : floor_(weights.shape(), weights.dtype()), lo_(grids[0].lo), hi_(grids[0].hi) {
  const auto slices = static_cast<int64_t>(grids.size());
  check(slices == 1 || (weights.rank() > 0 && weights.dim(0) == slices), "[adaround] ", name, ": got ",
        slices, " grids for weights of shape ", weights.shape(),
        ", expected one, or one for each output channel");
  std::vector<int64_t> extents(static_cast<size_t>(weights.rank()), 1);
  if (slices > 1) extents[0] = slices;
  step_ = Array(Shape(extents), weights.dtype());
  zero_point_ = Array(Shape(extents), weights.dtype());
  Array v(weights.shape(), weights.dtype());
  dispatch_floating(weights.dtype(), [&]<class T>(T) {
    if constexpr (!std::is_same_v<T, bf16>) {
      const int64_t size = weights.size() / std::max<int64_t>(1, slices);
      for (int64_t g = 0; g < slices; ++g) {
        const Grid& grid = grids[static_cast<size_t>(g)];
        const double step = grid.scale, zero_point = grid.zero_point;
        step_.data<T>()[g] = static_cast<T>(step);
        zero_point_.data<T>()[g] = static_cast<T>(zero_point);
        for (int64_t i = g * size; i < (g + 1) * size; ++i) {
          const double code = static_cast<double>(weights.data<T>()[i]) / step + zero_point;
          const double down = std::floor(code), rest = std::clamp(code - down, 0.0, 1.0);
          floor_.data<T>()[i] = static_cast<T>(down);
          v.data<T>()[i] = static_cast<T>(-std::log((zeta - gamma) / (rest - gamma) - 1));
        }
      }
    } else {
      throw argument_error("[adaround] got weights in bf16, expected f32 or f64");
    }
  });
  v_ = Tensor::leaf(v, name);
}

Tensor Rounding::weights_of(const Tensor& up) const {
  return (clamp(Tensor(floor_) + up, lo_, hi_) - Tensor(zero_point_)) * Tensor(step_);
}

Tensor Rounding::soft(const Tensor& h) const { return weights_of(h); }

Array Rounding::hard() const {
  const Tensor v = v_.detach();
  return weights_of(greater_equal(v, Tensor(0, v.dtype()))).value();
}

double Rounding::settled(double distance) const {
  int64_t count = 0;
  const std::vector<double> h = rectified_sigmoid(v_.detach()).value().to_vector();
  for (const double value : h) count += value <= distance || value >= 1 - distance;
  return h.empty() ? 1 : static_cast<double>(count) / static_cast<double>(h.size());
}

}  // namespace stairgrad::quant
