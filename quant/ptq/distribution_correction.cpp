#include "distribution_correction.h"

#include <algorithm>
#include <cmath>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../autograd/recorder.h"
#include "../../nn/optimiser.h"
#include "../batch_norm_inputs.h"
#include "../moments.h"
#include "drop.h"

namespace stairgrad::quant {
namespace {

// torch.optim.lr_scheduler.ReduceLROnPlateau with its factor 0.1 and its relative threshold 1e-4.
class Plateau {
 public:
  Plateau(double lr, int64_t patience, double smallest) : lr_(lr), smallest_(smallest), patience_(patience) {}
  double next(double loss) {
    if (loss < best_ * (1 - 1e-4)) {
      best_ = loss;
      bad_ = 0;
    } else if (++bad_ > patience_) {
      lr_ = std::max(smallest_, 0.1 * lr_);
      bad_ = 0;
    }
    return lr_;
  }

 private:
  double lr_, smallest_, best_ = HUGE_VAL;
  int64_t patience_, bad_ = 0;
};

// Distance of each image's statistics from those of the batch norm.
Tensor distance(const BatchNormInputs::Seen& seen) {
  constexpr double smallest = 1e-6;
  const Moments of_image = image_moments(seen.x);
  const Tensor sigma = sqrt(of_image.var + smallest), mu_bn(seen.norm->running_mean),
               sigma_bn = sqrt(Tensor(seen.norm->running_var) + smallest);
  const double scale = 1 / static_cast<double>(seen.x.dim(0));
  return (sum(square(of_image.mean - mu_bn)) + sum(square(sigma - sigma_bn))) * scale;
}

}  // namespace

FeatureCache correct_distribution(nn::Model& model, size_t block, const FeatureCache& inputs,
                                  const DistributionCorrectionOptions& options,
                                  const std::function<void()>& step) {
  BatchNormInputs norms(model);
  const auto run = [&](const Tensor& x) {  // the sum over the norms of this block; undefined if it has none
    norms.clear();
    model.forward(x, block, block + 1);
    Tensor total;
    for (const BatchNormInputs::Seen& seen : norms.seen())
      total = total.defined() ? total + distance(seen) : distance(seen);
    return total;
  };

  FeatureCache corrected;
  const int64_t images = inputs.images();
  for (int64_t first = 0; first < images; first += options.batch) {
    const Array start = inputs.run(first, std::min(options.batch, images - first));
    const Tensor x = Tensor::leaf(start.clone(), "features");
    if (first == 0) {
      const NoGrad no_grad;
      if (!run(x.detach()).defined()) break;
      const Shape row(std::vector<int64_t>(start.shape().begin() + 1, start.shape().end()));
      corrected = FeatureCache(images, row, inputs.rows().dtype());
    }
    nn::AdamW optimiser({{{{"features", x}}}});
    Plateau plateau(options.lr, 100, 1e-5);
    double lr = options.lr;
    for (int64_t t = 0; t < options.steps; ++t) {
      const Tensor loss = run(x) + reconstruction_loss(x, start) * options.weight;
      optimiser.step({grad(loss, x)}, lr);
      lr = plateau.next(loss.item());
      if (step) step();
    }
    corrected.set(first, x.value());
  }
  return corrected;
}

}  // namespace stairgrad::quant
