#include "sites.h"

#include <set>

#include "../autograd/recorder.h"

namespace stairgrad::quant {

namespace {

std::string owner(const std::string& tap) { return tap.substr(0, tap.rfind('.')); }

// The layers whose input is a tensor site's result as it is. Found by running the model once: such an input
// shares memory with what passed a tensor tap.
std::set<std::string> readers_of_tensors(nn::Model& model) {
  Arrays passed;
  std::set<std::string> readers;
  for (const nn::NamedTap& t : model.taps()) {
    if (t.tap->role == nn::Tap::Role::tensor)
      t.tap->hook = [&passed](const Tensor& x) {
        passed.push_back(x.value());
        return Quantized{x, {}};
      };
    if (t.tap->role == nn::Tap::Role::input)
      t.tap->hook = [&, name = owner(t.name)](const Tensor& x) {
        for (const Array& site : passed)
          if (x.value().shares_memory_with(site)) readers.insert(name);
        return Quantized{x, {}};
      };
  }
  const bool training = model.training();
  model.eval();
  {
    const NoGrad no_grad;
    model(Array::zeros(model.input_shape()));
  }
  model.train(training);
  for (const nn::NamedTap& t : model.taps()) t.tap->hook = nullptr;
  return readers;
}

}  // namespace

Sites::Sites(nn::Model& model, const Policy& policy) : model_(model), policy_(policy) {
  check_policy(policy, model);
  // With a shared skip the tensor's own site has put it on the grid that the layer reads.
  const std::set<std::string> on_grid =
      policy.skip == Skip::shared ? readers_of_tensors(model) : std::set<std::string>{};
  std::map<std::string, int64_t> channels;
  for (const nn::NamedTensor& p : model.parameters())
    channels[p.name] = p.tensor.rank() ? p.tensor.dim(0) : 1;
  for (const nn::NamedTap& t : model.taps()) {
    if (t.tap->role == nn::Tap::Role::tensor) {
      const TensorPolicy& tensor = policy.tensors.at(t.name);
      if (tensor.bits <= 8) add(t.name, *t.tap, tensor.quantizer, {.bits = tensor.bits}, 1);
      continue;
    }
    const std::string layer_name = owner(t.name);
    const LayerPolicy& layer = policy.layers.at(layer_name);
    const bool weight = t.tap->role == nn::Tap::Role::weight;
    const int bits = weight ? layer.w_bits : layer.a_bits;
    if (bits > 8 || (!weight && on_grid.count(layer_name))) continue;
    const bool per_channel = weight && layer.granularity == "channel";
    add(t.name, *t.tap, layer.quantizer, {.bits = bits, .weight = weight, .per_channel = per_channel},
        per_channel ? channels.at(t.name) : 1);
  }
}

Sites::~Sites() {
  for (const nn::NamedTap& t : model_.taps()) t.tap->hook = nullptr;
}

void Sites::add(const std::string& name, nn::Tap& tap, const std::string& quantizer,
                const QuantizerOptions& options, int64_t channels) {
  const auto made = make_quantizer(quantizer, options, channels);
  sites_.push_back({name, tap.role, add_module(name, made)});
  const std::string own = name.substr(name.rfind('.') + 1);
  tap.hook = [made, own](const Tensor& x) {
    const Scope scope(own);
    return (*made)(x);
  };
}

void Sites::calibrate(const Array& images) {
  const bool training = model_.training();
  model_.eval();
  eval();
  {
    const NoGrad no_grad;
    model_(images);
  }
  model_.train(training);
  train(training);
}

void Sites::project() {
  for (const Site& site : sites_) site.quantizer->project();
}

}  // namespace stairgrad::quant
