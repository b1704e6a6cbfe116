// Distribution correction (Liu et al., PD-Quant, CVPR'23, section 3.4).
#pragma once

#include <functional>

#include "../../nn/model.h"
#include "cache.h"

namespace stairgrad::quant {

struct DistributionCorrectionOptions {
  int64_t steps = 500;  ///< of Adam, for each batch
  int64_t batch = 32;
  double lr = 1e-3;  ///< a tenth after 100 steps without progress, not below 1e-5
  double weight =
      50;  ///< of the distance to the features as they were: 1 / lambda_c, lambda_c = 0.02 for ResNet
};

/// Moves the float inputs of a block so that what reaches its batch norms has, image by image, the mean and
/// the deviation that they were trained with: sum over norms of |mu - mu_s|^2 + |sigma - sigma_s|^2, plus the
/// distance to where they were. Depends on images and network alone, neither on bits nor on the method.
/// Returns a cache of the type of `inputs`, and an empty one for a block without batch norms. The block's
/// taps must pass floats. `step` is called after each step.
FeatureCache correct_distribution(nn::Model& model, size_t block, const FeatureCache& inputs,
                                  const DistributionCorrectionOptions& options,
                                  const std::function<void()>& step = {});

}  // namespace stairgrad::quant
