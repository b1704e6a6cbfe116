#include "scale_search.h"

#include <algorithm>
#include <cmath>

#include "../../autograd/recorder.h"
#include "../quantizers/affine.h"
#include "cache.h"

namespace stairgrad::quant {

ScaleSearchReport search_scales(nn::Model& model, Sites& sites, const Array& images, const Array& logits,
                                const ScaleSearchOptions& options, const std::function<void()>& step) {
  const nn::Evaluation evaluation(model);
  const NoGrad no_grad;
  const FeatureCache cached(images), expected(logits);
  const auto loss = [&](const std::vector<int64_t>& chosen) {
    const Tensor u = normalised_features(model(cached.pick(chosen)), options.fitness.centre);
    const Tensor v = normalised_features(Tensor(expected.pick(chosen)), options.fitness.centre);
    const Comparison comparison = compare_images(chosen, chosen, options.fitness, {}, {});
    return contrastive_loss(matmul(u, v, false, true), comparison, options.fitness, images.dim(0)).item();
  };
  const auto draw = [&](int64_t pass) {
    std::vector<int64_t> order = random_permutation(
        images.dim(0), Philox(options.seed, stream_of("fitness") + static_cast<uint64_t>(pass)));
    order.resize(static_cast<size_t>(std::min(options.images, images.dim(0))));
    return order;
  };

  ScaleSearchReport report;
  const std::vector<int64_t> first = draw(0);
  report.before = loss(first);
  const Philox rng(options.seed, stream_of("mutations"));
  uint64_t drawn = 0;
  for (int64_t pass = 0; pass < options.passes; ++pass) {
    const std::vector<int64_t> chosen = draw(pass);
    double best = loss(chosen);
    for (const Sites::Site& site : sites.sites()) {
      const auto quantizer = std::dynamic_pointer_cast<Affine>(site.quantizer);
      check(quantizer != nullptr, "[scale_search] ", site.name, ": expected the quantizer affine");
      for (int64_t m = 0; m < options.mutations; ++m) {
        const Grids before = quantizer->levels();
        Grids mutated = before;
        for (Grid& g : mutated)
          g.scale *= static_cast<float>(std::exp(options.deviation * rng.normal(drawn++)));
        quantizer->set_levels(mutated);
        const double fitness = loss(chosen);
        ++report.tried;
        if (fitness < best) {
          best = fitness;
          ++report.kept;
        } else {
          quantizer->set_levels(before);
        }
        if (step) step();
      }
    }
  }
  report.after = loss(first);
  return report;
}

}  // namespace stairgrad::quant
