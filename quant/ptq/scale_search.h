// Evolutionary search of scales with a contrastive fitness (Frumkin et al., CPT-V, 2022): no gradients.
#pragma once

#include <functional>

#include "../sites.h"
#include "contrastive.h"

namespace stairgrad::quant {

struct ScaleSearchOptions {
  int64_t passes = 10;      ///< over all sites
  int64_t mutations = 4;    ///< of each site in a pass
  int64_t images = 128;     ///< of the calibration images, others in each pass
  double deviation = 0.02;  ///< of the logarithm of a mutated scale
  ContrastiveOptions fitness = {.critic = Critic::C};
  uint64_t seed = 0;
};
struct ScaleSearchReport {
  int64_t tried = 0, kept = 0;
  double before = 0, after = 0;  ///< fitness over the images of the first pass
};

/// Mutates the scales of one `affine` site after another and keeps what lowers the contrastive loss between
/// the quantized network's logits and `logits` (n, classes), the float network's of `images` (n, h, w, c).
/// The sites must be initialised. `step` is called after each mutation.
ScaleSearchReport search_scales(nn::Model& model, Sites& sites, const Array& images, const Array& logits,
                                const ScaleSearchOptions& options, const std::function<void()>& step = {});

}  // namespace stairgrad::quant
