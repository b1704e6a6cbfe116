// Sensitivity by curvature: the peer that needs no search (Dong et al., HAWQ-V2, NeurIPS'20).
#pragma once

#include <map>

#include "space.h"

namespace stairgrad::quant {

struct HessianOptions {
  std::string quantizer = "lsq:init=mse";  ///< whose error is weighed
  std::string granularity = "layer";
  int probes = 8;  ///< random vectors of Hutchinson's estimator for each batch
  uint64_t seed = 0;
};

/// Mean trace of the Hessian of the cross-entropy by the weights and by the input of each layer of the space,
/// by site ("layer1.0.conv1.weight", "layer1.0.conv1.input"): E[v^T H v] / size with v = +-1 (Hutchinson,
/// 1990), H v as the gradient of <gradient, v>. Of `images` f32 (n, h, w, c) with labels s32 (n), in
/// evaluation mode. For an input the trace is that of one image, averaged over the batch.
std::map<std::string, double> hessian_traces(nn::Model& model, const SearchSpace& space, const Array& images,
                                             const Array& labels, const HessianOptions& options = {});

/// Merit of bits: minus the sum over weights and input of mean trace * |Q(x) - x|^2 (HAWQ-V2, eq. 6, and
/// section 3.4 for activations, per image); negative traces count as 0.
SearchSpace::Merit hessian_merit(nn::Model& model, const SearchSpace& space,
                                 const std::map<std::string, double>& traces, const Array& images,
                                 const HessianOptions& options = {});

}  // namespace stairgrad::quant
