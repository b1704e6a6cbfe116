// Ranks and correlations of lists of numbers.
#pragma once

#include <vector>

namespace stairgrad::nn {

/// 1 .. n from the smallest to the largest; equal values share the mean of their ranks.
std::vector<double> average_ranks(const std::vector<double>& values);
/// Pearson's correlation; NaN if either side is constant.
double correlation(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace stairgrad::nn
