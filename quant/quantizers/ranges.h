// Ranges [l, u] and their grids, and the statistics that ranges are chosen from.
#pragma once

#include <string>
#include <vector>

#include "../../autograd/quantized.h"
#include "../observers.h"
#include "../quantizer_settings.h"

namespace stairgrad::quant {

/// Ranges are never narrower, so that nothing divides by zero.
constexpr double smallest_range = 1e-6;
/// True for the range of constant data, in which nothing can be learned.
constexpr bool is_collapsed(double range) { return !(range > 1.0001 * smallest_range); }

/// Intervals of the uniform quantizer: 2^bits - 1; 254 for 8-bit weights, so that codes fit -127 .. 127.
constexpr int intervals(int bits, bool weight) { return weight && bits == 8 ? 254 : (1 << bits) - 1; }

/// The levels -u, ..., u in equal steps; below 8 bits the even grid without a zero.
Grid symmetric_grid(double u, int bits);
/// The levels l, ..., u in equal steps, moved to where zero is one of them (l <= 0 <= u).
Grid zero_grid(double l, double u, int bits);

/// What project() keeps a parameter above: a thousandth of its first values, one for each grid, and
/// `smallest`.
std::vector<double> floors(const std::vector<double>& first, double smallest);
/// Values that are at least those of `least`.
std::vector<double> raised(std::vector<double> values, const Array& least);

struct Statistics {
  double min = 0, max = 0, mean = 0, deviation = 0, mean_abs = 0;
  double max_abs() const { return max > -min ? max : -min; }
};
/// Of each of `groups` slices of the outermost axis, of the values that are finite; zeros if none is.
std::vector<Statistics> statistics(const Array& x, int64_t groups);

/// Where learned ranges start, by the setting "init": "deviations" (three, of normal or half-normal data, at
/// most the extremes; 8 bits can afford the extremes), "extremes", or "mse" (observers.h).
Ranges initial_ranges(const std::string& init, const Array& x, int64_t groups, int bits, bool symmetric);
SettingRule init_rule();

/// (x - mean) / deviation, of all or of each of `groups` slices of the outermost axis, with n - 1 in the
/// deviation.
Tensor standardise(const Tensor& x, int64_t groups);

/// A parameter with one value for each grid, shaped to broadcast along the slices of a tensor of rank `rank`.
Tensor spread(const Tensor& parameter, int rank);

}  // namespace stairgrad::quant
