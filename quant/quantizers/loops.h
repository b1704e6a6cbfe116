// The backward loops of the quantizers, compiled once per instruction set like those of kernels/simd: x and
// the gradient u are read once, dx is written once, and the sums for the parameters are taken on the way.
//
// Terms are added in their own type over 512 elements and in double beyond, over a fixed number of lanes: the
// same bits on every instruction set.
#pragma once

#include <cstdint>

#include "../../kernels/array.h"

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

template <class T>
struct BackwardLoops {
  void (*dsq)(const T* x, const T* u, T* dx, int64_t n, const DsqCurve& curve, DsqSums& sums);
  /// With p = x * inverse + zero: dx = u where lo < p < hi, else 0. Where y, unless it is null, equals x, no
  /// quantizer was applied: dx = u, and the sums count nothing.
  void (*rounded)(const T* x, const T* y, const T* u, T* dx, int64_t n, double inverse, double zero, double lo,
                  double hi, GridSums& sums);
  /// dx = u where l <= x <= h, else 0.
  void (*pass)(const T* x, const T* u, T* dx, int64_t n, double l, double h);
};

struct BackwardTable {
  BackwardLoops<float> f32;
  BackwardLoops<bf16> b16;
  BackwardLoops<double> f64;
};

}  // namespace stairgrad::quant
