// Attribution maps as something to learn, and to compare: what a quantized network shall look at is what the
// float network looks at (Wang et al., Generalizable mixed-precision quantization via attribution rank
// preservation, ICCV'21).
#pragma once

#include <vector>

#include "../model.h"

namespace stairgrad::nn {

struct ImitationOptions {
  /// Of the target's pixels, one for all images or one for each: large ones concentrate the map on its peaks,
  /// without changing ranks.
  std::vector<double> exponents = {1};
  int64_t top_k = 0;  ///< only the k largest pixels of each target count (first of equals); 0: all
  /// Leave out images where either map has nothing positive: their loss would reward maps that vanish. False:
  /// as the authors' code has it.
  bool skip_empty = true;
};

struct Imitation {
  Tensor loss;        ///< scalar
  int64_t empty = 0;  ///< images where either map has nothing positive among the pixels that count
};

/// Attribution imitation (GMPQ, eq. 6 and its code): the mean over images and pixels of (m / |m| - t / |t|)^2
/// with t = target^p, that is, 2 (1 - cos(m, t)) / pixels. maps and targets (n, h, w), not negative; only the
/// maps are differentiated. Both are scaled to a largest value of 1 before powers and norms, so that small
/// maps do not underflow. Norms are at least 1e-12. Throws argument_error for shapes that differ, and for
/// exponents that are not positive or neither one nor n.
Imitation imitate(const Tensor& maps, const Array& targets, const ImitationOptions& options = {});

/// Hierarchical partition of maps (n, h, w) into a quad-tree: a cell is cut into four while its values span
/// more than `tolerance` of the map's largest one, at most `levels` times. (R-GMPQ, IJCV'24, publishes no
/// rule: this is our reading.) Returns s32 (n, h, w): for each pixel the index in h w of its cell's first
/// pixel.
Array quad_tree(const Array& maps, double tolerance = 0.15, int levels = 3);
/// Every pixel becomes the mean of its cell: its noise falls with the root of the cell's size.
/// Differentiable.
Tensor cell_means(const Tensor& maps, const Array& cells);

/// Of each image of maps (n, h, w): Spearman's rank correlation, with average ranks; NaN if a map is
/// constant.
std::vector<double> spearman(const Array& maps, const Array& others);
/// Of each image: mean distance of a pixel's ranks in the two maps, over the k pixels largest in `targets`
/// (0: all), divided by h w. 0 is perfect, 1/3 chance.
std::vector<double> rank_errors(const Array& maps, const Array& targets, int64_t top_k = 0);
/// Of each image: -sum m log m with m = map / sum(map), in nats; log(h w) for an even map; NaN for an empty
/// one.
std::vector<double> entropies(const Array& maps);
/// The mean of what is not NaN; NaN of nothing.
double mean_of_numbers(const std::vector<double>& values);

/// Mean over images of |g - g'| over the mean of |g|, with g the gradient of the cross-entropy by the image,
/// and g' that of the other model: what bounds the generalisation gap of a policy (R-GMPQ, appendix J). In
/// evaluation mode; NaN where all g are 0.
double input_gradient_mismatch(Model& model, Model& other, const Array& images, const Array& labels);

}  // namespace stairgrad::nn
