// How difficult images are for a network, by several meters, and how sets of images differ in it.
#pragma once

#include <vector>

#include "../../kernels/array.h"

namespace stairgrad::quant::datafree {

/// One value for each image.
struct Difficulty {
  std::vector<double> entropy;  ///< of the prediction p, nats
  std::vector<double>
      gradient;  ///< GHM's gradient norm |p - y|_1 / 2: 1 - p_y for one class (Li et al., AAAI'19)
  std::vector<double> density;  ///< gradient_density() among these images
  std::vector<double> margin;   ///< largest probability minus the second
};

/// Of logits (n, classes) f32 and labels (n, classes), one-hot or soft. Throws argument_error for shapes that
/// do not fit.
Difficulty difficulty(const Array& logits, const Array& labels);

/// GHM's density: the share of values within `window` / 2, over the length of that window inside [0, 1]. The
/// paper counts values where this has their share, so that sets of different sizes compare.
std::vector<double> gradient_density(const std::vector<double>& gradient, double window = 0.1);

/// Largest distance of the two distribution functions (Kolmogorov and Smirnov). NaN for an empty sample.
double largest_distance(std::vector<double> a, std::vector<double> b);
/// Area between the two distribution functions (Wasserstein 1). NaN for an empty sample.
double mean_distance(std::vector<double> a, std::vector<double> b);

/// Counts in `bins` equal parts of [low, high]; values outside count in the outermost bins.
std::vector<int64_t> histogram(const std::vector<double>& values, double low, double high, int bins);

/// Mean cosine of different rows of features (n, d) f32: small for a diverse set. NaN for fewer than two
/// rows.
double mean_pairwise_cosine(const Array& features);
/// Share of rows of `real` that have a row of `made` within the distance of their own k-th neighbour in
/// `real` (coverage, Naeem et al., ICML'20).
double coverage(const Array& real, const Array& made, int k = 5);
/// Distance of each row of features (n, d) to the nearest of `others` (m, d). Throws argument_error for
/// shapes that do not fit.
std::vector<double> nearest_distances(const Array& features, const Array& others);

}  // namespace stairgrad::quant::datafree
