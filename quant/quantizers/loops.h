// The backward loops of the quantizers, compiled once per instruction set like those of kernels/simd: x and
// the gradient u are read once, dx is written once, and the sums for the parameters are taken on the way. So
// it is with mixtures of several grids (quant/search) and with levels that are not equally spaced, whose
// forwards are here too.
//
// Terms are added in their own type over 512 elements and in double beyond, over a fixed number of lanes: the
// same bits on every instruction set.
#pragma once

#include <cstdint>

#include "../../kernels/array.h"
#include "../../kernels/grid.h"

namespace stairgrad::quant {

/// DSQ on one range [l, u] with N intervals, as its backward needs it. With v = x * inverse + offset, which
/// runs from 0 at l to N at u, and t in [-1/2, 1/2] the place within the interval, the curve is phi(t) =
/// tanh(kappa t) / tanh(kappa / 2) (dsq_shape.h).
struct DsqCurve {
  static constexpr int terms = 9;

  double inverse, offset;
  double intervals;
  double alpha, kappa;
  bool live;  ///< false for a collapsed range: nothing inside has a gradient
  bool soft;  ///< the direct term of dl and du is phi's, not the code's
  /// True if phi / t, its derivative and its derivative by alpha / t are these polynomials in 4 t^2 - 1/2, as
  /// they are from alpha = 0.19 on.
  bool smooth;
  double phi[terms], half_slope[terms], by_alpha[terms];
};

/// Sums of DSQ's backward over a range of elements: dalpha = alpha * (u - l) / (2 N), du = upper / N,
/// dl = total - upper / N.
struct DsqSums {
  double alpha = 0, upper = 0, total = 0;

  void operator+=(const DsqSums& other) {
    alpha += other.alpha;
    upper += other.upper;
    total += other.total;
  }
};

/// Sums of the gradient u over a range of elements with positions p on a grid (rounded.h).
struct GridSums {
  double rounding = 0, below = 0, above = 0;

  void operator+=(const GridSums& other) {
    rounding += other.rounding;
    below += other.below;
    above += other.above;
  }
};

/// Levels that are not equally spaced: of p, levels[i] where i of the thresholds lie below p.
struct Levels {
  const double* levels;
  const float* thresholds;  ///< one less, ascending
  int64_t count;            ///< of the thresholds
};

/// One grid of a mixture: with p = x * inverse + zero, the value is share * scale * (code - zero), where code
/// is p rounded and limited to lo .. hi.
struct MixedGrid {
  double inverse, zero, lo, hi, scale, share;
};
/// Sums of a mixture's backward for one of its grids: `value` of u * scale * (code - zero).
struct MixedSums {
  double value = 0;
  GridSums grid;

  void operator+=(const MixedSums& other) {
    value += other.value;
    grid += other.grid;
  }
};

template <class T>
struct BackwardLoops {
  void (*dsq)(const T* x, const T* u, T* dx, int64_t n, const DsqCurve& curve, DsqSums& sums);
  /// With p = x * inverse + zero: dx = u where lo < p < hi, else 0. Where y, unless it is null, equals x, no
  /// quantizer was applied: dx = u, and the sums count nothing.
  void (*rounded)(const T* x, const T* y, const T* u, T* dx, int64_t n, double inverse, double zero,
                  double lo, double hi, GridSums& sums);
  /// dx = u where l <= x <= h, else 0.
  void (*pass)(const T* x, const T* u, T* dx, int64_t n, double l, double h);
  /// y = scale * the level of x * inverse.
  void (*on_levels)(const T* x, T* y, int64_t n, const Levels& levels, double inverse, double scale);
  /// With p = x * inverse: dx = u where p lies between the first and the last level, else 0; adds u (level -
  /// p) there, and u level elsewhere, to `sum`.
  void (*levels)(const T* x, const T* u, T* dx, int64_t n, const Levels& levels, double inverse, double& sum);
  /// dx = u k t (1 - tanh^2(t (x - middle))); NaN counts as 0.
  void (*tanh_slope)(const T* x, const T* u, T* dx, int64_t n, double k, double t, double middle);
  /// y = sum of the values of `count` grids, of which there are at most most_grids.
  void (*mix)(const T* x, T* y, int64_t n, const MixedGrid* grids, int64_t count);
  /// dx = u * sum of the shares of the grids where lo < p < hi.
  void (*mix_backward)(const T* x, const T* u, T* dx, int64_t n, const MixedGrid* grids, int64_t count,
                       MixedSums* sums);
};
constexpr int64_t most_grids = 8;  // of a mixture: one for each number of bits

struct BackwardTable {
  /// About sum_i counts[i] |values[i] - its level on the grid|^power, to 1e-5 of it; once that is beyond
  /// `bound`, any number beyond it.
  double (*rounding_error)(const float* values, const float* counts, int64_t n, const Grid& g, double power,
                           double bound);
  BackwardLoops<float> f32;
  BackwardLoops<bf16> b16;
  BackwardLoops<double> f64;
};

}  // namespace stairgrad::quant
