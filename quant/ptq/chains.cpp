#include "chains.h"

#include <cmath>

#include "../../autograd/ops.h"
#include "../../autograd/ops/clamp.h"
#include "../../autograd/recorder.h"

namespace stairgrad::quant {
namespace {

bool is_layer(const Node& node) {
  return node.op && (node.op->name() == "conv2d" || node.op->name() == "linear");
}

}  // namespace

std::vector<LayerChain> layer_chains(nn::Model& model) {
  const nn::Evaluation evaluation(model);
  const Trace t = trace([&](const Tensors& in) { return model(in[0]); }, {Array::zeros(model.input_shape())});
  std::map<const Node*, std::vector<const Node*>> readers;
  for (const auto& node : t.nodes)
    for (const Tensor& input : node->inputs)
      if (input.node()) readers[input.node().get()].push_back(node.get());
  const auto only_reader = [&](const Node* node) {
    const auto found = readers.find(node);
    return found != readers.end() && found->second.size() == 1 ? found->second[0] : nullptr;
  };

  std::vector<LayerChain> chains;
  for (const auto& node : t.nodes) {
    if (!is_layer(*node)) continue;
    LayerChain chain{node->scope, "", "", 0};
    const Node* last = node.get();
    for (const Node* next = only_reader(last); next && chain.reader.empty(); next = only_reader(last)) {
      if (is_layer(*next)) {
        if (chain.high > 0 && next->inputs[0].node().get() == last) chain.reader = next->scope;
        break;
      }
      if (const auto* norm = dynamic_cast<const BatchNormOp*>(next->op.get())) {
        if (next->inputs[0].node().get() != last) break;
        if (chain.high == 0) chain.norm = next->scope;
        if (norm->has_skip) break;
        if (norm->relu) chain.high = norm->high;
      } else if (next->op->name() == "relu") {
        chain.high = HUGE_VAL;
      } else if (const auto* clamp = dynamic_cast<const ClampOp*>(next->op.get())) {
        if (clamp->low != 0) break;
        chain.high = clamp->high;
      } else if (next->op->name() != "add" || next->inputs[0].shape() == next->inputs[1].shape()) {
        break;  // an add of a bias goes on
      }
      last = next;
    }
    chains.push_back(chain);
  }
  return chains;
}

}  // namespace stairgrad::quant
