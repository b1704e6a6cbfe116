// What a network costs, counted on its trace.
#pragma once

#include <string>
#include <vector>

#include "../autograd/recorder.h"

namespace stairgrad::quant {

struct LayerCost {
  std::string name;    ///< scope of the layer
  int64_t params = 0;  ///< weights alone
  int64_t macs = 0;    ///< multiply-accumulates for one image
  int w_bits = 32, a_bits = 32;
  int64_t bops() const { return macs * w_bits * a_bits; }
};

/// Convolutions and fully connected layers, in the order they run. BOPs = MACs * w_bits * a_bits; bits are
/// those of the quantizers that the layer's operands come from, 32 without one. `trace` must be of one image
/// or more; MACs are for one.
std::vector<LayerCost> count_cost(const Trace& trace);

int64_t total_macs(const std::vector<LayerCost>& layers);
/// Over all layers, or over those with fewer than 32 bits on both sides.
int64_t total_bops(const std::vector<LayerCost>& layers, bool quantized_only = false);

}  // namespace stairgrad::quant
