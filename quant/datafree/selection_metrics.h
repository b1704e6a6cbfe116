// Whether a selector gives bits to the images that need them, and what else could be done with the same bits.
#pragma once

#include <vector>

#include "../../kernels/array.h"

namespace stairgrad::quant::datafree {

/// Decisions against the truth. Ratios without a denominator are NaN.
struct Decisions {
  int64_t true_positive = 0, false_positive = 0, false_negative = 0, true_negative = 0;
  double precision() const;
  double recall() const;
  double f1() const;
};
/// Element by element: `chosen` what was decided, `needed` what is true. Throws argument_error for different
/// sizes.
Decisions compare_decisions(const std::vector<bool>& chosen, const std::vector<bool>& needed);

/// Area under the curve of recall over false alarms when `score` is cut at every height; ties count half. NaN
/// if all or none are needed.
double roc_auc(const std::vector<double>& score, const std::vector<bool>& needed);

/// A rank correlation with its 95 % interval (Fisher's z with the variance of Bonett and Wright, 2000).
struct Correlation {
  double value, low, high;
};
/// Spearman's, with mean ranks for ties. NaN for fewer than 4 values or where one side is constant.
Correlation spearman(const std::vector<double>& a, const std::vector<double>& b);

/// KL(softmax(full) || softmax(quantized)) of each row, nats: how much an image suffers. Logits (n, classes)
/// f32.
std::vector<double> sensitivity(const Array& full, const Array& quantized);
/// 1 where the least bits are wrong and the most bits are right: images that need bits. Logits (n, classes).
std::vector<bool> needs_bits(const Array& low, const Array& high, const std::vector<int32_t>& labels);

// --- other ways to spend the bits of `choices` (n, sites) u8; cost[s][k] is what candidate k costs at site s
// ---

using SiteCosts = std::vector<std::vector<double>>;
/// Mean over the images.
double mean_cost(const Array& choices, const SiteCosts& cost);

/// The rows in another order: the same bits for other images.
Array shuffled_choices(const Array& choices, uint64_t seed);
/// One row for all images: at each site the candidate below the mean of `choices`, then one more at the sites
/// that are farthest from it while the mean cost of `choices` allows it; (n, sites).
Array static_choices(const Array& choices, const SiteCosts& cost);
/// What an oracle does that knows gain[i][k], what image i gains from candidate k at all sites (gain[i][0] is
/// 0): from the lowest candidates on it upgrades the image with the largest gain for its cost while the mean
/// cost stays within `budget`; (n, sites).
Array oracle_choices(const std::vector<std::vector<double>>& gain, const SiteCosts& cost, double budget);

}  // namespace stairgrad::quant::datafree
