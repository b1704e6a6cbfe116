#include "dynamic_bits.h"

#include <algorithm>
#include <set>

#include "../../autograd/ops.h"
#include "../../kernels/reduce.h"
#include "../../nn/fold.h"
#include "../cost.h"
#include "../gates.h"
#include "../image_choice.h"
#include "../image_route.h"

namespace stairgrad::quant::datafree {
namespace {

constexpr double selector_bits = 8;

// True while it lives.
class Raised {
 public:
  explicit Raised(bool& flag) : flag_(flag) { flag_ = true; }
  ~Raised() { flag_ = false; }
  Raised(const Raised&) = delete;
  Raised& operator=(const Raised&) = delete;

 private:
  bool& flag_;
};

void check_options(const nn::Model& model, const DynamicOptions& o) {
  const std::vector<int>& c = o.candidates;
  check(!c.empty() && std::ranges::is_sorted(c) && std::ranges::adjacent_find(c) == c.end() &&
            c.front() >= 1 && c.back() <= 8,
        "[dynamic] got ", c.size(), " candidates",
        c.empty() ? "" : text(" from ", c.front(), " to ", c.back()), ", expected ascending bits of 1 to 8");
  check(std::ranges::count(c, o.target) == 1, "[dynamic] the target of ", o.target,
        " bits is not among the candidates");
  check(o.after >= 1 && o.after <= model.head(), "[dynamic] after: got ", o.after, " blocks, expected 1 to ",
        model.head());
}

void check_skip(const Policy& policy) {
  check(policy.skip == Skip::u8, "[dynamic] the policy's skip is ", to_string(policy.skip),
        ", expected u8: stored tensors have 8 bits, which layers map to those of the image");
}

// With dynamic weights a candidate's bits are those of weights and activations alike.
void check_weight_bits(const DynamicOptions& options, const std::string& layer, const LayerPolicy& own) {
  check(!options.weights || own.w_bits == options.target, "[dynamic] layer '", layer, "' has weights of ",
        own.w_bits, " bits, expected the target's ", options.target,
        ": where weights are dynamic, too, they take the candidate's bits");
}

// What a run of zeros without quantizers tells of a model.
struct Structure {
  std::vector<LayerCost> layers, behind;    // all, and those behind the first blocks but for the last one
  std::map<std::string, int64_t> channels;  // that a layer reads
  std::map<std::string, nn::BatchNormBehind> norms;  // behind each layer
  int64_t map_channels = 0;                          // of what the first blocks give
};

Structure structure_of(nn::Model& model, const DynamicOptions& options) {
  Structure result;
  const nn::Evaluation evaluation(model);
  const KeptHooks kept(model);
  for (const nn::NamedTap& t : model.taps()) {
    t.tap->hook = nullptr;
    if (t.tap->role == nn::Tap::Role::input)
      t.tap->hook = [&result, name = t.owner()](const Tensor& x) {
        result.channels[name] = x.shape().back();
        return Quantized{x, {}};
      };
  }
  const auto layers = [&](size_t from, const Array& x) {
    return count_cost(
        trace([&](const Tensors& in) { return model.forward(in[0], from, model.blocks().size()); }, {x}));
  };
  const Array images = Array::zeros(model.input_shape());
  if (options.norms) result.norms = nn::batch_norms_behind(model);
  result.layers = layers(0, images);
  {
    const NoGrad no_grad;
    const Array map = model.forward(images, 0, options.after).value();
    result.map_channels = map.shape().back();
    result.behind = layers(options.after, map);
    if (!result.behind.empty()) result.behind.pop_back();
  }
  return result;
}

}  // namespace

Policy dynamic_policy(nn::Model& model, const Policy& fixed, const DynamicOptions& options) {
  check_options(model, options);
  check_skip(fixed);
  Policy policy = fixed;
  detach_sites(model);
  const std::map<std::string, std::string> stored = readers_of_tensors(model);
  const std::vector<LayerCost> behind = structure_of(model, options).behind;
  for (const LayerCost& cost : behind) {
    LayerPolicy& own = policy.layers.at(cost.name);
    check_weight_bits(options, cost.name, own);
    own.a_bits = stored.count(cost.name) ? 32 : 8;
  }
  return policy;
}

std::shared_ptr<DynamicBits> attach_dynamic_bits(nn::Model& model, Sites& sites,
                                                 const DynamicOptions& options) {
  check_options(model, options);
  check_skip(sites.policy());
  const std::shared_ptr<DynamicBits> dynamic(new DynamicBits(model, options));
  const Structure structure = structure_of(model, options);
  const std::vector<LayerCost>& behind = structure.behind;
  std::map<std::string, nn::Tap*> inputs, weights;
  for (const nn::NamedTap& t : model.taps()) {
    if (t.tap->role == nn::Tap::Role::input) inputs[t.owner()] = t.tap;
    if (t.tap->role == nn::Tap::Role::weight) weights[t.owner()] = t.tap;
  }
  std::map<std::string, int64_t> groups, channels;
  std::map<std::string, nn::BatchNorm2d*> norms;
  for (const nn::NamedModule& m : model.modules()) {
    if (const auto* conv = dynamic_cast<const nn::Conv2d*>(m.module)) groups[m.name] = conv->options.groups;
    if (auto* norm = dynamic_cast<nn::BatchNorm2d*>(m.module)) norms[m.name] = norm;
  }
  check(!options.norms || !structure.norms.empty(),
        "[dynamic] got a model without batch norms, expected some to copy for each candidate; share them, "
        "or do not fold them");
  for (const nn::NamedTensor& p : model.parameters())
    channels[p.name] = p.tensor.rank() ? p.tensor.dim(0) : 1;

  check(!behind.empty(), "[dynamic] no layer is left behind ", options.after, " blocks");
  for (const LayerCost& cost : behind)
    check_weight_bits(options, cost.name, sites.policy().layers.at(cost.name));
  std::set<std::string> chosen, followed;
  for (const auto& [layer, norm] : structure.norms)
    check(norms.count(norm.path) && followed.insert(norm.path).second, "[dynamic] the batch norm ", norm.path,
          " behind '", layer,
          "' is not a BatchNorm2d of one layer alone; share batch norms among the candidates");

  for (const LayerCost& cost : behind) {
    const LayerPolicy& own = sites.policy().layers.at(cost.name);
    const size_t site = dynamic->sites_.size();
    dynamic->sites_.push_back(
        {cost.name, cost.macs, own.w_bits, groups.count(cost.name) ? groups.at(cost.name) : 1});
    dynamic->quantizers_.emplace_back();
    for (const int bits : options.candidates)
      dynamic->quantizers_.back().push_back(dynamic->add_module(
          text(cost.name, ".b", bits), make_quantizer(options.quantizer, {.bits = bits})));
    nn::Tap* tap = inputs.at(cost.name);
    tap->hook = [stored = tap->hook, site, self = dynamic.get()](const Tensor& x) {
      return Quantized{self->quantize(site, stored ? stored(x).value : x), {}};
    };
    chosen.insert(cost.name);
    if (const auto norm = structure.norms.find(cost.name); norm != structure.norms.end())
      dynamic->add_norms(cost.name, site, *norms.at(norm->second.path));
    if (!options.weights) continue;
    const bool per_channel = own.granularity == "channel";
    dynamic->weight_quantizers_.emplace_back();
    for (const int bits : options.candidates)
      dynamic->weight_quantizers_.back().push_back(dynamic->add_module(
          text(cost.name, ".w", bits),
          make_quantizer(own.quantizer, {.bits = bits, .weight = true, .per_channel = per_channel},
                         per_channel ? channels.at(cost.name + ".weight") : 1)));
    weights.at(cost.name)->hook = [site, self = dynamic.get()](const Tensor& w) {
      return Quantized{self->quantize_weights(site, w), {}};
    };
  }

  const auto count = static_cast<int64_t>(dynamic->sites_.size()), candidates = dynamic->candidates();
  if (options.type == SelectorType::layer) {
    for (const DynamicBits::Site& site : dynamic->sites_)
      dynamic->selectors_.push_back(
          dynamic->add_module(site.layer + ".selector",
                              std::make_shared<BitSelector>(options.type, structure.channels.at(site.layer),
                                                            1, candidates, options.selector)));
  } else {
    dynamic->selectors_.push_back(
        dynamic->add_module("selector", std::make_shared<BitSelector>(options.type, structure.map_channels,
                                                                      count, candidates, options.selector)));
  }

  const int64_t first =
      options.selector.start_highest ? candidates - 1 : static_cast<int64_t>(dynamic->target_candidate());
  for (const auto& selector : dynamic->selectors_) selector->start(options.seed, first);
  for (const LayerCost& cost : structure.layers) {
    const LayerPolicy& own = sites.policy().layers.at(cost.name);
    if (!chosen.count(cost.name))
      dynamic->fixed_bops_ += static_cast<double>(cost.macs) * own.w_bits * own.a_bits;
  }
  dynamic->fixed_bops_ += static_cast<double>(dynamic->selector_macs()) * selector_bits * selector_bits;
  model.attach("dynamic", dynamic);
  return dynamic;
}

Tensor DynamicBits::choose(BitSelector& selector, const Tensor& features, int64_t first, int64_t count) {
  const int64_t n = features.dim(0);
  if (choosing == Choosing::random || choosing == Choosing::given) {
    Array gates = Array::zeros({n, count, candidates()});
    check(choosing == Choosing::random || choices.shape() == Shape({n, static_cast<int64_t>(sites_.size())}),
          "[dynamic] choices: got ", choices.shape(), ", expected a row for each of ", n, " images and ",
          sites_.size(), " columns");
    for (int64_t i = 0; i < n * count; ++i) {
      const int64_t place = i / count * static_cast<int64_t>(sites_.size()) + first + i % count;
      const int64_t k = choosing == Choosing::given
                            ? choices.data<uint8_t>()[place]
                            : static_cast<int64_t>(rng.below(static_cast<uint64_t>(place),
                                                             static_cast<uint64_t>(candidates())));
      check(k < candidates(), "[dynamic] choices: got ", k, " of ", candidates(), " candidates");
      gates.data<float>()[i * candidates() + k] = 1;
    }
    return gates;
  }
  const Tensor logits = selector(features);
  if (recording() != Recording::trace)
    site_probabilities_.push_back(softmax(reshape(logits, {n, count, candidates()})));
  if (choosing == Choosing::hard) return hard_gates(logits, candidates());
  if (choosing == Choosing::straight_through) return straight_through_gates(logits, candidates());
  const Philox own(rng.words(0)[0], static_cast<uint64_t>(first));
  return gumbel_gates(logits, candidates(), temperature, own);
}

Tensor DynamicBits::quantize(size_t site, const Tensor& x) {
  if (options_.type == SelectorType::layer)
    site_gates_.push_back(choose(*selectors_[site], x, static_cast<int64_t>(site), 1));
  const Tensor gates = gates_at(site);
  Tensors parts;
  const Scope scope("bits");
  for (const auto& quantizer : quantizers_[site]) parts.push_back((*quantizer)(x).value);
  if (options_.weights) return image_route(gates, parts, sites_[site].groups, static_cast<int>(site));
  return image_choice(gates, parts, static_cast<int>(site));
}

Tensor DynamicBits::gates_at(size_t site) const {
  check(running_, "[dynamic] ", sites_[site].layer,
        ": the model runs without its selector; call DynamicBits::forward()");
  if (options_.type == SelectorType::layer) return gates_of(site_gates_.at(site), 0);
  return gates_of(gates_, static_cast<int64_t>(site));
}

void DynamicBits::add_norms(const std::string& layer, size_t site, nn::BatchNorm2d& norm) {
  for (const int bits : options_.candidates) {
    const auto own = std::make_shared<nn::BatchNorm2d>(norm.weight.size(), norm.eps, norm.momentum);
    own->load_state(norm.state());
    own->eval();
    norms_[site].push_back(add_module(text(layer, ".norm", bits), own));
  }
  norm.instead = [this, site](const Tensor& x, const Tensor& skip, const BatchNormOptions& options) {
    return normalise(site, x, skip, options);
  };
}

Tensor DynamicBits::normalise(size_t site, const Tensor& x, const Tensor& skip,
                              const BatchNormOptions& options) {
  Tensors parts;
  for (const auto& norm : norms_.at(site)) parts.push_back(norm->normalise(x, skip, options));
  return image_choice(gates_at(site), parts, static_cast<int>(site));
}

Tensor DynamicBits::quantize_weights(size_t site, const Tensor& w) {
  const Scope scope("weight");
  Tensors parts;
  for (const auto& quantizer : weight_quantizers_[site]) parts.push_back((*quantizer)(w).value);
  return side_by_side(parts);
}

Tensor DynamicBits::forward(const Tensor& images, Tensors* maps) {
  site_gates_.clear();
  site_probabilities_.clear();
  gates_ = {};
  const Raised running(running_);
  Tensor x = images;
  for (size_t block = 0; block < model_.head(); ++block) {
    x = model_.forward(x, block, block + 1);
    if (block + 1 == options_.after && options_.type != SelectorType::layer)
      gates_ = choose(*selectors_[0], x, 0, static_cast<int64_t>(sites_.size()));
    if (maps) maps->push_back(x);
  }
  const Tensor logits = model_.forward(x, model_.head(), model_.blocks().size());
  if (recording() == Recording::trace) return logits;
  if (options_.type == SelectorType::layer) gates_ = concat(site_gates_, 1);
  probabilities_ = site_probabilities_.empty() ? Tensor() : concat(site_probabilities_, 1);
  return logits;
}

Array DynamicBits::last_choices() const {
  check(gates_.defined(), "[dynamic] nothing ran yet; call forward() first");
  const Array chosen = kernels::argmax(gates_.value());
  Array result(chosen.shape(), DType::u8);
  std::copy_n(chosen.data<int32_t>(), chosen.size(), result.data<uint8_t>());
  return result;
}

Tensor DynamicBits::cost() const {
  const auto m = static_cast<int64_t>(sites_.size());
  Array weight({m, candidates()});
  const double target = target_bops();
  for (int64_t i = 0; i < weight.size(); ++i)
    weight.data<float>()[i] = static_cast<float>(
        bops(sites_[static_cast<size_t>(i / candidates())], static_cast<size_t>(i % candidates())) / target);
  return sum(gates_ * weight, {1, 2}) + fixed_bops_ / target;
}

double DynamicBits::bops(const Site& site, size_t candidate) const {
  const int bits = options_.candidates[candidate];
  return static_cast<double>(site.macs) * (options_.weights ? bits : site.w_bits) * bits;
}

size_t DynamicBits::target_candidate() const {
  const auto place = std::ranges::find(options_.candidates, options_.target);
  return static_cast<size_t>(place - options_.candidates.begin());
}

double DynamicBits::target_bops() const {
  double total = fixed_bops_;
  for (const Site& site : sites_) total += bops(site, target_candidate());
  return total;
}

double DynamicBits::cost_of(const std::vector<int>& candidate) const {
  double total = fixed_bops_;
  for (size_t i = 0; i < sites_.size(); ++i) total += bops(sites_[i], static_cast<size_t>(candidate[i]));
  return total / target_bops();
}

double DynamicBits::least_cost() const { return cost_of(std::vector<int>(sites_.size(), 0)); }
double DynamicBits::most_cost() const {
  return cost_of(std::vector<int>(sites_.size(), static_cast<int>(options_.candidates.size()) - 1));
}

void DynamicBits::project() {
  for (const auto* all : {&quantizers_, &weight_quantizers_})
    for (const auto& of_site : *all)
      for (const auto& quantizer : of_site) quantizer->project();
}

void DynamicBits::train(bool on) {
  Module::train(on);
  for (const auto& [site, norms] : norms_)
    for (const auto& norm : norms) norm->eval();
}

void DynamicBits::train_selectors(bool on) {
  for (const auto& selector : selectors_) selector->train(on);
}

std::vector<nn::NamedTensor> DynamicBits::selector_parameters() const {
  std::vector<nn::NamedTensor> all;
  for (size_t i = 0; i < selectors_.size(); ++i)
    for (const nn::NamedTensor& p : selectors_[i]->parameters())
      all.push_back({text("selector", i, '.', p.name), p.tensor});
  return all;
}

Arrays DynamicBits::selector_biases() const {
  Arrays all;
  for (const auto& selector : selectors_) all.push_back(selector->biases());
  return all;
}

int64_t DynamicBits::selector_macs() const {
  int64_t total = 0;
  for (const auto& selector : selectors_) total += selector->macs();
  return total;
}

}  // namespace stairgrad::quant::datafree
