// Means of a few runs, and how sure they are.
#pragma once

#include <cstdint>
#include <vector>

namespace stairgrad::examples {

double mean(const std::vector<double>& x);
/// Standard deviation of the population that x is a sample of; NaN for fewer than two values.
double deviation(const std::vector<double>& x);

/// The smallest value with a share of x below it (0.5: the median, upper of two); x has at least one.
double percentile(std::vector<double> x, double share);

struct Interval {
  double low, high;
};
/// Where the mean of the population lies with 95 % confidence, by Student's t distribution; NaN for fewer
/// than two values.
Interval mean_interval(const std::vector<double>& x);

/// Two-sided p of McNemar's exact test: that of so many pictures which only one of two networks knows, `lost`
/// and `gained` are shared out by chance. 1 if there are none.
double mcnemar(int64_t lost, int64_t gained);
/// Two networks on the same pictures: how many only the first knows, how many only the second, and mcnemar().
struct Paired {
  int64_t lost = 0, gained = 0;
  double p = 1;
};
Paired compare_answers(const std::vector<bool>& first_right, const std::vector<bool>& second_right);

}  // namespace stairgrad::examples
