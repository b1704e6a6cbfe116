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
/// tanh(kappa t) / tanh(kappa / 2).
struct DsqCurve {
  double inverse, offset;
  double intervals;
  double alpha, kappa;
  bool live;         ///< false for a collapsed range: nothing inside has a gradient
  bool soft;         ///< the direct term of dl and du is phi's, not the code's
  bool near_linear;  ///< kappa is small: phi is a series in kappa^2, which is exact at alpha = 1
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

template <class T>
struct BackwardLoops {
  void (*dsq)(const T* x, const T* u, T* dx, int64_t n, const DsqCurve& curve, DsqSums& sums);
  /// LSQ with p = x * inverse + zero: dx = u where lo < p < hi; returns the sum of u times d(y / scale).
  double (*lsq)(const T* x, const T* u, T* dx, int64_t n, double inverse, double zero, double lo, double hi);
  /// dx = u where l <= x <= h, else 0.
  void (*pass)(const T* x, const T* u, T* dx, int64_t n, double l, double h);
};

struct BackwardTable {
  BackwardLoops<float> f32;
  BackwardLoops<bf16> b16;
  BackwardLoops<double> f64;
};

}  // namespace stairgrad::quant
