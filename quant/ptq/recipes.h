// Published recipes: what each method does, and what it does with the first and the last layer.
#pragma once

#include "../policy.h"
#include "reconstruction.h"

namespace stairgrad::quant {

enum class PtqMethod {
  rtn,       ///< round to nearest: ranges alone
  adaround,  ///< layer by layer, activations in floats (Nagel et al., ICML'20)
  brecq,     ///< block by block: the rounding, then the steps of activations (Li et al., ICLR'21)
  qdrop,     ///< both at once, with activations that are quantized at random (Wei et al., ICLR'22)
  pdquant    ///< QDrop with the difference of predictions (Liu et al., CVPR'23)
};
PtqMethod parse_method(const std::string& name);
std::string to_string(PtqMethod method);
std::vector<std::string> method_names();

/// The phases of a method with `iterations` a unit (the papers': 20,000). Learning rates grow as 20,000 /
/// iterations, that of the rounding up to 1e-2 and that of the steps up to 1e-3: with fewer steps the
/// rounding could not settle. BRECQ's second phase has a quarter of the iterations, as in the paper.
ReconstructionOptions ptq_recipe(PtqMethod method, int64_t iterations);

/// What the first and the last layer are; must be said with every result, since it moves them by points.
enum class EndsPreset {
  qdrop,    ///< weights of both with 8 bits, and the input of the last layer, before and behind its pooling
  brecq,    ///< also the first layer's output; who takes it sets ReconstructionOptions::skip_first, too
  pdquant,  ///< as qdrop
  same      ///< as all other layers
};
EndsPreset parse_preset(const std::string& name);
std::string to_string(EndsPreset preset);
std::vector<std::string> preset_names();

/// Every layer with `layer`'s bits but for the ends. `skip` is usually shared: one grid feeds layer and skip.
Policy preset_policy(nn::Model& model, const LayerPolicy& layer, Skip skip, EndsPreset preset);

}  // namespace stairgrad::quant
