#include "fold.h"

#include <cmath>

#include "../autograd/ops/batch_norm.h"
#include "../autograd/recorder.h"

namespace stairgrad::nn {

std::map<std::string, BatchNormBehind> batch_norms_behind(Model& model) {
  const Evaluation evaluation(model);
  const Trace run =
      trace([&](const Tensors& in) { return model(in[0]); }, {Array::zeros(model.input_shape())});
  std::map<std::string, BatchNormBehind> found;
  for (const auto& node : run.nodes) {
    const auto* norm = dynamic_cast<const BatchNormOp*>(node->op.get());
    if (!norm) continue;
    const Node* before = node->inputs[0].node().get();
    check(before && before->op && before->op->name() == "conv2d", "[fold] ", node->scope,
          ": no convolution comes right before it, expected a convolution, which it belongs to");
    found[before->scope] = {node->scope, norm->eps};
  }
  return found;
}

void fold_batch_norms(Model& model, Model& folded) {
  State from = model.state(), to;
  for (const auto& [conv, behind] : batch_norms_behind(model)) {
    const std::string norm = behind.path + '.';
    Array weight = from.at(conv + ".weight").clone(), bias(Shape{weight.dim(0)});
    const int64_t per_channel = weight.size() / weight.dim(0);
    for (int64_t c = 0; c < weight.dim(0); ++c) {
      const auto value = [&](const char* name) {
        return static_cast<double>(from.at(norm + name).data<float>()[c]);
      };
      const double gain = value("weight") / std::sqrt(value("running_var") + behind.eps);
      for (int64_t k = 0; k < per_channel; ++k) {
        float& w = weight.data<float>()[c * per_channel + k];
        w = static_cast<float>(w * gain);
      }
      bias.data<float>()[c] = static_cast<float>(value("bias") - value("running_mean") * gain);
    }
    to[conv + ".weight"] = weight;
    to[conv + ".bias"] = bias;
    for (const char* name : {"weight", "bias", "running_mean", "running_var"}) from.erase(norm + name);
    from.erase(conv + ".weight");
  }
  to.merge(from);
  folded.load_state(to);
}

}  // namespace stairgrad::nn
