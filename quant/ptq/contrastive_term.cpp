#include "contrastive_term.h"

#include <cmath>
#include <numeric>

#include "../../autograd/ops.h"

namespace stairgrad::quant {

ContrastiveTerm::ContrastiveTerm(const std::optional<ContrastiveOptions>& options, const Array& logits,
                                 const std::vector<int32_t>& classes, const FeatureCache& target,
                                 const Philox& rng)
    : active_(options), logits_(logits), classes_(classes), target_(target), everything_(classes.size()) {
  if (!active_) return;
  options_ = *options;
  std::iota(everything_.begin(), everything_.end(), int64_t{0});
  if (options_.mapping == Mapping::tail) {
    features_ = normalised_features(Tensor(logits), options_.centre).value();
    return;
  }
  check(!options_.bank && options_.mask_similarity >= 1 && !options_.reweight,
        "[contrastive] a bank of all images, masks by similarity and weights need the mapping tail");
  if (options_.mapping != Mapping::linear) return;
  const int64_t channels = target.run(0, 1).shape().back();
  projection_ = Tensor::leaf(
      random_normal({channels, 128}, rng, 1 / std::sqrt(static_cast<double>(channels))), "projection");
  optimiser_.emplace(std::vector<nn::ParameterGroup>{{{{"projection", projection_}}}});
}

Tensor ContrastiveTerm::loss(const Tensor& logits, const Tensor& out, const std::vector<int64_t>& indices) {
  const std::vector<int64_t>& columns = options_.bank ? everything_ : indices;
  Tensor u, v;
  if (options_.mapping == Mapping::tail) {
    u = logits;
    v = FeatureCache(features_).pick(columns);
    last_float_ = FeatureCache(logits_).pick(indices);
  } else {
    const Tensor target(target_.pick(indices));
    u = mapped(out);
    const Tensor float_features = mapped(target);
    v = normalised_features(float_features, options_.centre);
    last_float_ = float_features.value();
  }
  last_ = u.value();
  const Tensor similarity = matmul(normalised_features(u, options_.centre), v, false, /*transpose_b=*/true);
  return contrastive_loss(similarity, compare_images(indices, columns, options_, features_, classes_),
                          options_, logits_.dim(0));
}

std::optional<FeatureStatistics> ContrastiveTerm::statistics() const {
  if (!active_ || !last_.has_value()) return {};
  return feature_statistics(last_, last_float_);
}

Tensor ContrastiveTerm::mapped(const Tensor& x) const {
  if (options_.mapping == Mapping::flatten) return reshape(x, {x.dim(0), x.size() / x.dim(0)});
  const Tensor pooled = x.rank() == 4 ? mean(x, {1, 2}) : x;
  return options_.mapping == Mapping::linear ? matmul(pooled, projection_) : pooled;
}

}  // namespace stairgrad::quant
