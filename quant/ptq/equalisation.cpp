#include "equalisation.h"

#include <algorithm>
#include <cmath>

#include "../../autograd/recorder.h"
#include "../../kernels/elementwise.h"
#include "../../kernels/reduce.h"
#include "chains.h"

namespace stairgrad::quant {
namespace {

// Weights (oc, kh, kw, ic / groups) of either kind of layer.
Array weights_of(nn::Model& model, const std::string& path) {
  for (const nn::NamedTensor& p : model.parameters())
    if (p.name == path + ".weight") return p.tensor.value();
  throw argument_error(text("[equalise] ", path, " has no weights"));
}
Array parameter(nn::Model& model, const std::string& name) {
  for (const nn::NamedTensor& p : model.parameters())
    if (p.name == name) return p.tensor.value();
  return {};
}

// Largest |w| of each output channel.
std::vector<double> range_out(const Array& w) {
  const int64_t channels = w.dim(0), size = w.size() / channels;
  std::vector<double> range(static_cast<size_t>(channels));
  for (int64_t i = 0; i < w.size(); ++i)
    range[static_cast<size_t>(i / size)] =
        std::max(range[static_cast<size_t>(i / size)], static_cast<double>(std::abs(w.data<float>()[i])));
  return range;
}
// Which of `channels` input channels weight i reads; those of depthwise convolutions count along the outer
// axis.
int64_t channel_in(const Array& w, int64_t i, int64_t channels) {
  const int64_t inner = w.shape().back();
  return inner == channels ? i % inner : i / (w.size() / w.dim(0));
}

void scale_rows(Array w, const std::vector<double>& factor) {
  const int64_t size = w.size() / w.dim(0);
  for (int64_t i = 0; i < w.size(); ++i)
    w.data<float>()[i] = static_cast<float>(w.data<float>()[i] * factor[static_cast<size_t>(i / size)]);
  w.bump_version();
}

// What a batch norm multiplies each channel by, without its sign.
std::vector<double> factors_of(const nn::BatchNorm2d& norm) {
  std::vector<double> factors = norm.weight.value().to_vector();
  for (size_t c = 0; c < factors.size(); ++c)
    factors[c] = std::abs(factors[c]) / std::sqrt(norm.running_var.data<float>()[c] + norm.eps);
  return factors;
}
// Makes a batch norm whose input is `in` times what it was give `out` times what it gave.
void scale_norm(nn::BatchNorm2d& norm, const std::vector<double>& in, const std::vector<double>& out) {
  std::vector<double> in_squared, gamma;
  for (size_t c = 0; c < in.size(); ++c) {
    const double var = norm.running_var.data<float>()[c];
    in_squared.push_back(in[c] * in[c]);
    gamma.push_back(out[c] / in[c] * std::sqrt((var * in_squared[c] + norm.eps) / (var + norm.eps)));
  }
  scale_rows(norm.running_mean, in);
  scale_rows(norm.running_var, in_squared);
  scale_rows(norm.weight.value(), gamma);
  scale_rows(norm.bias.value(), out);
}

// Largest input of each channel of a layer, over the images.
std::vector<double> largest_inputs(nn::Model& model, const std::string& layer, const Array& images) {
  std::vector<double> largest;
  for (const nn::NamedTap& t : model.taps())
    if (t.name == layer + ".input")
      t.tap->hook = [&](const Tensor& x) {
        std::vector<int> axes;
        for (int axis = 0; axis + 1 < x.rank(); ++axis) axes.push_back(axis);
        largest = kernels::reduce(kernels::Reduction::max, x.value(), axes).to_vector();
        return Quantized{x, {}};
      };
  model(images);
  for (const nn::NamedTap& t : model.taps()) t.tap->hook = nullptr;
  return largest;
}

}  // namespace

EqualisationReport equalise(nn::Model& model, const Array& images, int rounds) {
  const nn::Evaluation evaluation(model);
  const NoGrad no_grad;
  const Array before = model(images).value();
  EqualisationReport report;
  const std::vector<LayerChain> chains = layer_chains(model);
  for (int round = 0; round < rounds; ++round)
    for (const LayerChain& chain : chains) {
      if (chain.reader.empty()) continue;
      const Array first = weights_of(model, chain.layer), second = weights_of(model, chain.reader);
      const auto channels = static_cast<size_t>(first.dim(0));
      const bool depthwise = second.shape().back() == 1 && second.dim(0) == first.dim(0);
      if (!depthwise && second.shape().back() != first.dim(0)) continue;  // other groups
      // Weights are those of the folded network: `fold` is what a batch norm multiplies a channel by.
      std::vector<double> r1 = range_out(first), r2(channels), factor(channels, 1);
      const std::vector<double> fold = chain.norm.empty()
                                           ? std::vector<double>(channels, 1)
                                           : factors_of(module_at<nn::BatchNorm2d>(model, chain.norm));
      for (size_t c = 0; c < channels; ++c) r1[c] *= fold[c];
      for (int64_t i = 0; i < second.size(); ++i) {
        double& range = r2[static_cast<size_t>(channel_in(second, i, first.dim(0)))];
        range = std::max(range, static_cast<double>(std::abs(second.data<float>()[i])));
      }
      const std::vector<double> largest =
          std::isfinite(chain.high) ? largest_inputs(model, chain.reader, images) : std::vector<double>();
      for (size_t c = 0; c < channels; ++c) {
        if (r1[c] < 1e-9 || r2[c] < 1e-9) continue;
        double s = std::sqrt(r1[c] / r2[c]);
        if (!largest.empty()) {
          if (largest[c] >= chain.high) {
            report.kept += round == 0;
            continue;
          }
          s = std::max(s, largest[c] / (0.99 * chain.high));
        }
        factor[c] = s;
        report.channels += round == 0;
      }
      std::vector<double> inverse(channels), down(channels);  // of the result, and of the weights
      for (size_t c = 0; c < channels; ++c) {
        inverse[c] = 1 / factor[c];
        down[c] = fold[c] > 0 ? fold[c] / factor[c] : 1;
      }
      scale_rows(first, down);
      if (const Array bias = parameter(model, chain.layer + ".bias"); bias.has_value())
        scale_rows(bias, down);
      if (!chain.norm.empty()) scale_norm(module_at<nn::BatchNorm2d>(model, chain.norm), down, inverse);
      Array scaled = second;
      for (int64_t i = 0; i < scaled.size(); ++i)
        scaled.data<float>()[i] = static_cast<float>(
            scaled.data<float>()[i] * factor[static_cast<size_t>(channel_in(scaled, i, first.dim(0)))]);
      scaled.bump_version();
      report.pairs += round == 0;
    }
  const std::vector<double> old = before.to_vector(), now = model(images).value().to_vector();
  double scale = 1e-12;
  for (size_t i = 0; i < old.size(); ++i) scale = std::max(scale, std::abs(old[i]));
  for (size_t i = 0; i < old.size(); ++i)
    report.change = std::max(report.change, std::abs(now[i] - old[i]) / scale);
  return report;
}

}  // namespace stairgrad::quant
