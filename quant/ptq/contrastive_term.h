// The contrastive loss of CL-Calib as a term of a unit's reconstruction.
#pragma once

#include <optional>

#include "../../nn/optimiser.h"
#include "cache.h"
#include "contrastive.h"

namespace stairgrad::quant {

/// What it keeps beside the loss: the features that images are compared with, and a mapping that is learned.
class ContrastiveTerm {
 public:
  /// `logits` and `classes` are the float network's of all images, `target` its outputs of the unit; they
  /// outlive the term. Without options it does nothing. Throws argument_error for options that need the
  /// mapping tail.
  ContrastiveTerm(const std::optional<ContrastiveOptions>& options, const Array& logits,
                  const std::vector<int32_t>& classes, const FeatureCache& target, const Philox& rng);

  /// Of the mapping; none unless it is learned.
  const Tensors& parameters() const { return optimiser_ ? optimiser_->parameters() : none_; }
  void step(const Tensors& gradients, double lr) {
    if (optimiser_) optimiser_->step(gradients, lr);
  }

  /// Of the images `indices`, whose unit gave `out` and whose network `logits`.
  Tensor loss(const Tensor& logits, const Tensor& out, const std::vector<int64_t>& indices);
  /// Of the last loss.
  std::optional<FeatureStatistics> statistics() const;

 private:
  Tensor mapped(const Tensor& x) const;

  bool active_;
  ContrastiveOptions options_;
  const Array& logits_;
  const std::vector<int32_t>& classes_;
  const FeatureCache& target_;
  Array features_, last_, last_float_;
  Tensor projection_;
  std::optional<nn::AdamW> optimiser_;
  Tensors none_;
  std::vector<int64_t> everything_;  // numbers of all images
};

}  // namespace stairgrad::quant
