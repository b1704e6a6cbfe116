// Batch norms as parts of the convolutions before them.
#pragma once

#include "model.h"

namespace stairgrad::nn {

struct BatchNormBehind {
  std::string path;
  double eps;
};
/// The batch norm that follows each convolution, by that one's path. Throws argument_error where a batch norm
/// follows something else.
std::map<std::string, BatchNormBehind> batch_norms_behind(Model& model);

/// Fills `folded`, the same network of the zoo made with ConvStyle::folded, so that it computes what `model`
/// computes in evaluation mode: w gamma / sqrt(var + eps), and beta - mean gamma / sqrt(var + eps) as the
/// bias. Layers without a batch norm are copied. Throws argument_error where the two do not fit, or a batch
/// norm does not follow a convolution.
void fold_batch_norms(Model& model, Model& folded);

}  // namespace stairgrad::nn
