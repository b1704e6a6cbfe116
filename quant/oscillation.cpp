#include "oscillation.h"

#include <cmath>

#include "../autograd/ops.h"
#include "../autograd/recorder.h"
#include "../kernels/threads.h"

namespace stairgrad::quant {
namespace {

// The quantized weights of every weight site, by its name.
std::map<std::string, Tensor> weights_of(const nn::Model& model) {
  std::map<std::string, Tensor> weights;
  for (const nn::NamedTensor& p : model.parameters()) weights[p.name] = p.tensor;
  return weights;
}

// On the grid that the step's forward has found, which is not looked for again.
Quantized quantized(const Quantizer& quantizer, const Tensor& weights) {
  const NoGrad no_grad;
  Tensors in = {quantizer.transform(weights)};
  for (const Tensor& parameter : quantizer.own_parameters()) in.push_back(parameter);
  return {quantizer.apply(in), quantizer.to_grid()};
}

// The ends of the grids, shaped to broadcast along the slices of an array of `rank`.
Array ends(const Grids& grids, bool high, int rank) {
  std::vector<float> values;
  for (const Grid& g : grids) values.push_back(grid::decode(high ? g.hi : g.lo, g));
  std::vector<int64_t> extents(static_cast<size_t>(rank), 1);
  extents[0] = static_cast<int64_t>(values.size());
  return Array::of(values, Shape(extents));
}

}  // namespace

OscillationCounter::OscillationCounter(const nn::Model& model, const Sites& sites, double momentum)
    : momentum_(momentum) {
  check(momentum > 0 && momentum < 1, "[oscillation] momentum: got ", momentum,
        ", expected 0 < momentum < 1");
  const std::map<std::string, Tensor> weights = weights_of(model);
  for (const Sites::Site& site : sites.sites()) {
    if (site.role != nn::Tap::Role::weight) continue;
    const Tensor& weight = weights.at(site.name);
    layers_[site.name] = {site.quantizer, weight, Array::full(weight.shape(), NAN),
                          Array::zeros(weight.shape()), Array::zeros(weight.shape())};
  }
}

void OscillationCounter::update() {
  const auto momentum = static_cast<float>(momentum_);
  for (auto& [name, layer] : layers_) {
    const Quantized q = quantized(*layer.quantizer, layer.weight);
    if (!q.on_grid()) continue;
    const Array now = q.integers();
    float *before = layer.integers.data<float>(), *direction = layer.direction.data<float>();
    float* frequency = layer.frequency.data<float>();
    const float* code = now.data<float>();
    parallel_for(now.size(), 4096, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const float change = code[i] - before[i];  // NaN at the first update
        const bool back = change * direction[i] < 0;
        if (change != 0 && !std::isnan(change)) direction[i] = std::copysign(1.0f, change);
        frequency[i] += momentum * (static_cast<float>(back) - frequency[i]);
        before[i] = code[i];
      }
    });
  }
}

std::map<std::string, double> OscillationCounter::shares(double threshold) const {
  std::map<std::string, double> shares;
  for (const auto& [name, layer] : layers_) {
    int64_t count = 0;
    for (const double f : layer.frequency.to_vector()) count += f > threshold;
    shares[name] = static_cast<double>(count) / static_cast<double>(layer.frequency.size());
  }
  return shares;
}

nn::State OscillationCounter::state() const {
  nn::State state;
  for (const auto& [name, layer] : layers_) {
    state[name + ".integers"] = layer.integers;
    state[name + ".direction"] = layer.direction;
    state[name + ".frequency"] = layer.frequency;
  }
  return state;
}

Tensor dampening(const nn::Model& model, const Sites& sites) {
  const std::map<std::string, Tensor> weights = weights_of(model);
  Tensor total = Array::scalar(0);
  for (const Sites::Site& site : sites.sites()) {
    if (site.role != nn::Tap::Role::weight) continue;
    const Tensor& weight = weights.at(site.name);
    const Quantized q = quantized(*site.quantizer, weight);
    Tensor latent = site.quantizer->transform(weight);
    if (q.on_grid())  // beyond its ends nothing oscillates
      latent =
          minimum(maximum(latent, ends(q.grids, false, weight.rank())), ends(q.grids, true, weight.rank()));
    total = total + sum(square(q.value - latent));
  }
  return total;
}

}  // namespace stairgrad::quant
