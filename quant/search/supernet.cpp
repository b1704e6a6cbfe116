#include "supernet.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "../../autograd/ops.h"
#include "../sites.h"

namespace stairgrad::quant {

void Supernet::soften(const Softening& softening) {
  for (const Layer& layer : layers_) {
    layer.weight->soften(softening);
    layer.input->soften(softening);
  }
}

Tensor Supernet::expected_bops() const {
  Tensor total;
  for (const Layer& layer : layers_) {
    const Tensor own =
        layer.weight->expected_bits() * layer.input->expected_bits() * static_cast<double>(layer.macs);
    total = total.defined() ? total + own : own;
  }
  return total;
}

std::vector<Supernet::ExpectedBits> Supernet::expected_bits() const {
  const NoGrad no_grad;
  std::vector<ExpectedBits> all;
  for (const Layer& layer : layers_)
    all.push_back({layer.weight->expected_bits().item(), layer.input->expected_bits().item()});
  return all;
}

double Supernet::mean_bits() const {
  double total = 0;
  for (const ExpectedBits& bits : expected_bits()) total += bits.w + bits.a;
  return total / static_cast<double>(2 * layers_.size());
}

BitChoice Supernet::chosen(int* ties) const {
  if (ties) *ties = 0;
  BitChoice choice;
  const auto pick = [&](const MixedQuantizer& site) {
    bool tied = false;
    const int bits = site.bits()[site.chosen(&tied)];
    if (ties) *ties += tied;
    return bits;
  };
  for (const Layer& layer : layers_) choice.push_back({pick(*layer.weight), pick(*layer.input)});
  return choice;
}

double Supernet::merit(size_t layer, LayerBits bits) const {
  const NoGrad no_grad;
  const auto of = [](const MixedQuantizer& site, int b) {
    const auto at = std::find(site.bits().begin(), site.bits().end(), b) - site.bits().begin();
    const double distance = std::abs(b - site.bits()[site.chosen()]);
    return site.log_shares()[static_cast<size_t>(at)] - 1e-7 * distance;
  };
  return of(*layers_[layer].weight, bits.w) + of(*layers_[layer].input, bits.a);
}

void Supernet::project() {
  for (const Layer& layer : layers_) {
    layer.weight->project();
    layer.input->project();
  }
}

std::shared_ptr<Supernet> attach_supernet(nn::Model& model, const SearchSpace& space,
                                          const SupernetOptions& options) {
  detach_sites(model);
  const std::shared_ptr<Supernet> supernet(new Supernet);
  std::map<std::string, int64_t> channels;
  for (const nn::NamedTensor& p : model.parameters())
    channels[p.name] = p.tensor.rank() ? p.tensor.dim(0) : 1;
  std::map<std::string, nn::Tap*> taps;
  for (const nn::NamedTap& t : model.taps()) taps[t.name] = t.tap;
  const bool per_channel = options.granularity == "channel";
  for (const SearchLayer& layer : space.layers()) {
    const auto mixed = [&](const std::string& site, const std::vector<int>& bits, bool weight) {
      const bool each = weight && per_channel;
      const auto made = supernet->add_module(
          site, std::make_shared<MixedQuantizer>(options.quantizer, bits,
                                                 QuantizerOptions{.weight = weight, .per_channel = each},
                                                 each ? channels.at(site) : 1));
      made->reset(0, site);
      taps.at(site)->hook = [made](const Tensor& x) { return Quantized{(*made)(x), {}}; };
      return made;
    };
    supernet->layers_.push_back({layer.name, layer.macs, mixed(layer.name + ".weight", space.w_bits(), true),
                                 mixed(layer.name + ".input", space.a_bits(), false)});
  }
  model.attach("search", supernet);
  return supernet;
}

std::vector<nn::ParameterGroup> supernet_groups(const nn::Module& model, double weight_decay,
                                                double importance_lr) {
  nn::ParameterGroup weights{{}, 1, weight_decay}, others{{}, 1, 0}, logits{{}, importance_lr, 0};
  for (const nn::NamedTensor& p : model.parameters()) {
    const bool own = p.name.starts_with("search.");
    nn::ParameterGroup& group = own && p.name.ends_with(".logits") ? logits
                                : own || p.tensor.rank() < 2       ? others
                                                                   : weights;
    group.parameters.push_back(p);
  }
  return {weights, others, logits};
}

void detach_supernet(nn::Model& model) {
  detach_sites(model);
  model.detach("search");
}

}  // namespace stairgrad::quant
