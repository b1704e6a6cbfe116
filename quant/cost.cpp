#include "cost.h"

#include "quantizer.h"

namespace stairgrad::quant {
namespace {

// Bits of the quantizer that a tensor comes from, looking through ops that only move elements.
int bits_of(const Tensor& t) {
  const Node* node = t.node().get();
  if (!node || !node->op) return 32;
  if (const auto* op = dynamic_cast<const QuantizeOp*>(node->op.get())) return op->bits();
  const std::string_view name = node->op->name();
  const bool moves = name == "reshape" || name == "slice" || name == "pad" || name == "max_pool2d";
  return moves ? bits_of(node->inputs[0]) : 32;
}

}  // namespace

std::vector<LayerCost> count_cost(const Trace& trace) {
  std::vector<LayerCost> layers;
  for (const auto& node : trace.nodes) {
    const bool layer = node->op->name() == "conv2d" || node->op->name() == "linear";
    if (!layer) continue;
    const Tensor &src = node->inputs[0], &weights = node->inputs[1];
    const int64_t per_output = weights.size() / weights.dim(0);
    const int64_t outputs = node->outputs[0].size() / node->outputs[0].dim(0);
    layers.push_back({node->scope, weights.size(), outputs * per_output, bits_of(weights), bits_of(src)});
  }
  return layers;
}

int64_t total_macs(const std::vector<LayerCost>& layers) {
  int64_t total = 0;
  for (const LayerCost& layer : layers) total += layer.macs;
  return total;
}

int64_t total_bops(const std::vector<LayerCost>& layers, bool quantized_only) {
  int64_t total = 0;
  for (const LayerCost& layer : layers)
    if (!quantized_only || (layer.w_bits < 32 && layer.a_bits < 32)) total += layer.bops();
  return total;
}

}  // namespace stairgrad::quant
