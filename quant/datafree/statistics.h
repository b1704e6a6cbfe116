// How far images are from those a network was trained on, judged by what its batch norms remember.
#pragma once

#include "../batch_norm_inputs.h"

namespace stairgrad::quant::datafree {

/// Over what statistics are taken.
enum class StatisticsLaw {
  batch,  ///< mean and biased variance of the batch (GDFQ, IntraQ, HAST, ...)
  image   ///< mean and standard deviation of every image, and of the input (ZeroQ, DSG)
};

struct StatisticsOptions {
  StatisticsLaw law = StatisticsLaw::batch;
  /// Differences up to this quantile of those of Gaussian noise cost nothing (DSG's slack); 0: all cost.
  double slack = 0;
  /// The differences of image i in layer i % layers are doubled before they are squared (DSG's layer-wise
  /// enhancement).
  bool enhance = false;
};

/// L = 1/layers sum_l mean_c (mu_l - running_mean)^2 + mean_c (var_l - running_var)^2 by the batch law;
/// sum_l (|mu_l - running_mean|^2 + |sigma_l - sqrt(running_var)|^2) / n by the image law, to which the input
/// contributes with mean 0 and deviation 1 (Cai et al., ZeroQ, CVPR'20).
class StatisticsLoss {
 public:
  /// Throws argument_error for a model without batch norms: there is nothing to match.
  StatisticsLoss(nn::Model& model, const StatisticsOptions& options);

  /// Finds the margins of the slack: quantiles of the differences for `noise` (n, h, w, c), which runs
  /// through the model in evaluation mode.
  void measure_slack(const Array& noise);

  /// Runs `forward` on images, with everything that the batch norms see recorded, and returns its result;
  /// then value() is the loss of that run. The model must be in evaluation mode.
  Tensor run(const std::function<Tensor(const Tensor&)>& forward, const Tensor& images);
  Tensor value() const;

 private:
  struct Margin {
    double mean = 0, spread = 0;
  };
  struct Difference {
    Tensor mean, spread;  // (c), or (n, c)
  };
  std::vector<Difference> differences() const;
  Tensor squared(const Tensor& difference, double margin, size_t layer) const;

  nn::Model& model_;
  StatisticsOptions options_;
  BatchNormInputs inputs_;
  Tensor images_;
  std::vector<Margin> margins_;  // by layer; empty without slack
};

}  // namespace stairgrad::quant::datafree
