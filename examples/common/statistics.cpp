#include "statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace stairgrad::examples {
namespace {

// The 97.5 % quantile of Student's t distribution: exact values for few degrees of freedom, the expansion of
// Cornish and Fisher beyond (within 1e-4).
double t_quantile(size_t degrees) {
  constexpr double exact[] = {12.7062, 4.3027, 3.1824, 2.7764, 2.5706,
                              2.4469,  2.3646, 2.3060, 2.2622, 2.2281};
  if (degrees <= std::size(exact)) return exact[degrees - 1];
  constexpr double z = 1.959964;
  const auto n = static_cast<double>(degrees);
  const double z3 = std::pow(z, 3), z5 = std::pow(z, 5), z7 = std::pow(z, 7), z9 = std::pow(z, 9);
  return z + (z3 + z) / (4 * n) + (5 * z5 + 16 * z3 + 3 * z) / (96 * n * n) +
         (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * std::pow(n, 3)) +
         (79 * z9 + 776 * z7 + 1482 * z5 - 1920 * z3 - 945 * z) / (92160 * std::pow(n, 4));
}

}  // namespace

double mean(const std::vector<double>& x) {
  return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
}

double deviation(const std::vector<double>& x) {
  if (x.size() < 2) return NAN;
  const double centre = mean(x);
  double sum = 0;
  for (const double value : x) sum += (value - centre) * (value - centre);
  return std::sqrt(sum / static_cast<double>(x.size() - 1));
}

double percentile(std::vector<double> x, double share) {
  std::ranges::sort(x);
  return x[std::min(x.size() - 1, static_cast<size_t>(share * static_cast<double>(x.size())))];
}

Interval mean_interval(const std::vector<double>& x) {
  if (x.size() < 2) return {NAN, NAN};
  const double half = t_quantile(x.size() - 1) * deviation(x) / std::sqrt(static_cast<double>(x.size()));
  return {mean(x) - half, mean(x) + half};
}

double mcnemar(int64_t lost, int64_t gained) {
  const int64_t n = lost + gained;
  const auto choose = [n](int64_t k) {  // log of n over k, times 2^-n
    return std::lgamma(static_cast<double>(n + 1)) - std::lgamma(static_cast<double>(k + 1)) -
           std::lgamma(static_cast<double>(n - k + 1)) - static_cast<double>(n) * std::log(2.0);
  };
  double tail = 0;
  for (int64_t k = 0; k <= std::min(lost, gained); ++k) tail += std::exp(choose(k));
  return std::min(1.0, 2 * tail);
}

Paired compare_answers(const std::vector<bool>& first_right, const std::vector<bool>& second_right) {
  Paired result;
  for (size_t i = 0; i < first_right.size(); ++i) {
    result.lost += first_right[i] && !second_right[i];
    result.gained += second_right[i] && !first_right[i];
  }
  result.p = mcnemar(result.lost, result.gained);
  return result;
}

}  // namespace stairgrad::examples
