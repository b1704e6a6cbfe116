// DSQ's curve within one interval, in double. Included by sources that are compiled once per instruction set,
// so everything is local to them.
#pragma once

#include <math.h>

namespace stairgrad::quant {
namespace {

/// phi(t) = tanh(kappa t) / tanh(kappa / 2), half its derivative, and its derivative by alpha.
struct DsqShape {
  double phi, half_slope, by_alpha;
};

/// At t in [-1/2, 1/2], with kappa = ln(2 / alpha - 1).
inline DsqShape dsq_shape(double t, double alpha, double kappa) {
  const double kappa_by_alpha = -2 / (alpha * (2 - alpha));
  if (fabs(kappa) < 0.05) {
    // phi = 2 t S(w t^2) / S(w / 4) with S(y^2) = tanh(y) / y and w = kappa^2: nothing cancels.
    const auto s = [](double z) {
      return 1 + z * (-1.0 / 3 + z * (2.0 / 15 + z * (-17.0 / 315 + z * 62.0 / 2835)));
    };
    const auto slope = [](double z) {
      return -1.0 / 3 + z * (4.0 / 15 + z * (-51.0 / 315 + z * 248.0 / 2835));
    };
    const double w = kappa * kappa, z = w * t * t, end = s(w / 4);
    const double by_w = 2 * t * (slope(z) * t * t * end - s(z) * slope(w / 4) / 4) / (end * end);
    return {2 * t * s(z) / end, (1 - z * s(z) * s(z)) / end, by_w * 2 * kappa * kappa_by_alpha};
  }
  // 1 - tanh^2 as 1 / cosh^2, which keeps its digits where tanh is near 1.
  const double tanh_t = tanh(kappa * t), cosh_t = cosh(kappa * t), tanh_end = tanh(kappa / 2),
               cosh_end = cosh(kappa / 2);
  const double by_kappa = (t / (cosh_t * cosh_t) - tanh_t / (2 * tanh_end * cosh_end * cosh_end)) / tanh_end;
  return {tanh_t / tanh_end, kappa / (2 * tanh_end * cosh_t * cosh_t), by_kappa * kappa_by_alpha};
}

}  // namespace
}  // namespace stairgrad::quant
