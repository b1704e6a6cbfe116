#include "bias_correction.h"

#include "../../autograd/recorder.h"
#include "../../kernels/elementwise.h"
#include "../../kernels/reduce.h"
#include "chains.h"

namespace stairgrad::quant {
namespace {

// Mean output of a layer over everything but channels, for what reaches it in a run of blocks [0, to].
std::vector<double> mean_output(nn::Model& model, const std::string& path, const Array& images) {
  nn::Tap* tap = nullptr;
  for (const nn::NamedTap& t : model.taps())
    if (t.name == path + ".input") tap = t.tap;
  Array input;
  const auto before = tap->hook;
  tap->hook = [&](const Tensor& x) {
    input = x.value();
    return before ? before(x) : Quantized{x, {}};
  };
  model(images);
  tap->hook = before;
  const Array y = module_at<nn::Layer>(model, path).forward(input).value();
  std::vector<int> axes;
  for (int axis = 0; axis + 1 < y.rank(); ++axis) axes.push_back(axis);
  std::vector<double> mean = kernels::reduce(kernels::Reduction::sum, y, axes).to_vector();
  for (double& m : mean) m *= static_cast<double>(mean.size()) / static_cast<double>(y.size());
  return mean;
}

void add(Array to, const std::vector<double>& values, double factor) {
  for (size_t i = 0; i < values.size(); ++i) to.data<float>()[i] += static_cast<float>(factor * values[i]);
  to.bump_version();
}

}  // namespace

int correct_biases(nn::Model& model, nn::Model& float_model, const Array& images) {
  const nn::Evaluation evaluation(model), float_evaluation(float_model);
  const NoGrad no_grad;
  int corrected = 0;
  for (const LayerChain& chain : layer_chains(float_model)) {
    std::vector<double> error = mean_output(model, chain.layer, images);
    const std::vector<double> expected = mean_output(float_model, chain.layer, images);
    for (size_t c = 0; c < error.size(); ++c) error[c] -= expected[c];
    Array bias;
    for (const nn::NamedTensor& p : model.parameters())
      if (p.name == chain.layer + ".bias") bias = p.tensor.value();
    if (bias.has_value())
      add(bias, error, -1);
    else if (!chain.norm.empty())
      add(module_at<nn::BatchNorm2d>(model, chain.norm).running_mean, error, 1);
    else
      continue;
    ++corrected;
  }
  return corrected;
}

}  // namespace stairgrad::quant
