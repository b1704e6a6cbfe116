// Cross-layer equalisation (Nagel et al., "Data-free quantization", ICCV'19, section 4.1).
#pragma once

#include "../../nn/model.h"

namespace stairgrad::quant {

/// What equalisation changed.
struct EqualisationReport {
  int pairs = 0;         ///< of layers
  int64_t channels = 0;  ///< that were scaled
  int64_t kept = 0;      ///< channels of ReLU6 that were not, because they reach 6 before or after
  double change = 0;     ///< largest |difference| of a logit of `images`, relative to the largest logit
};

/// Scales the channels between two layers, with nothing but batch norm and ReLU between them, so that both
/// have weights of the same range there: by sqrt(r1 / r2), up and down again, which changes no result. A
/// batch norm between them is folded first: it keeps its statistics and shift, and multiplies by 1 or -1.
/// ReLU6 is not homogeneous: its channels are scaled only as long as none of `images` (n, h, w, c) reaches
/// its limit, neither before nor after. `rounds` over the network. The model must be without sites.
EqualisationReport equalise(nn::Model& model, const Array& images, int rounds = 3);

}  // namespace stairgrad::quant
