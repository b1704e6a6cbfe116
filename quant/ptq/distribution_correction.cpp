// The inputs of batch norms are the outputs of the convolutions before them, which are convolved once more
// here: a fused batch norm and ReLU keeps nothing of its input.
#include "distribution_correction.h"

#include <algorithm>
#include <cmath>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../autograd/recorder.h"
#include "../../nn/optimiser.h"
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

struct Normed {
  nn::Conv2d* convolution;
  nn::BatchNorm2d* norm;
  nn::Tap* input;
  Tensor x;  // what the convolution read
};

// Distance of each image's statistics from those of the batch norm.
Tensor distance(const Normed& n) {
  constexpr double smallest = 1e-6;
  const Tensor z = conv2d(n.x, n.convolution->weight.detach(), n.convolution->options);
  const int64_t correction = z.dim(1) * z.dim(2) > 1 ? 1 : 0;
  const Tensor mu = mean(z, {1, 2}), sigma = sqrt(var(z, {1, 2}, false, correction) + smallest);
  const Tensor mu_bn(n.norm->running_mean), sigma_bn = sqrt(Tensor(n.norm->running_var) + smallest);
  const double scale = 1 / static_cast<double>(z.dim(0));
  return (sum(square(mu - mu_bn)) + sum(square(sigma - sigma_bn))) * scale;
}

}  // namespace

FeatureCache correct_distribution(nn::Model& model, const std::vector<LayerChain>& chains, size_t block,
                                  const FeatureCache& inputs, const DistributionCorrectionOptions& options,
                                  const std::function<void()>& step) {
  std::vector<Normed> normed;
  std::map<std::string, nn::Tap*> taps;
  for (const nn::NamedTap& t : model.taps()) taps[t.name] = t.tap;
  for (const LayerChain& chain : chains)
    if (!chain.norm.empty())
      normed.push_back({&module_at<nn::Conv2d>(model, chain.layer),
                        &module_at<nn::BatchNorm2d>(model, chain.norm),
                        taps.at(chain.layer + ".input"),
                        {}});
  std::vector<std::function<Quantized(const Tensor&)>> before;
  for (Normed& n : normed) {
    before.push_back(n.input->hook);
    n.input->hook = [&n](const Tensor& x) {
      n.x = x;
      return Quantized{x, {}};
    };
  }
  const auto run = [&](const Tensor& x) {  // the sum over the norms of this block; undefined if it has none
    for (Normed& n : normed) n.x = {};
    model.forward(x, block, block + 1);
    Tensor total;
    for (const Normed& n : normed)
      if (n.x.defined()) total = total.defined() ? total + distance(n) : distance(n);
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
      corrected =
          FeatureCache(images, Shape(std::vector<int64_t>(start.shape().begin() + 1, start.shape().end())));
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
  for (size_t i = 0; i < normed.size(); ++i) normed[i].input->hook = before[i];
  return corrected;
}

}  // namespace stairgrad::quant
