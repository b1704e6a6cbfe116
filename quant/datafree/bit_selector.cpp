#include "bit_selector.h"

#include "../../autograd/ops.h"
#include "../channel_moments.h"
#include "../names.h"

namespace stairgrad::quant::datafree {
namespace {

const Tensor none;
constexpr Named<SelectorType> selector_types[] = {
    {SelectorType::layer, "layer"}, {SelectorType::image, "image"}, {SelectorType::offset, "offset"}};

}  // namespace

std::string to_string(SelectorType type) { return name_in(selector_types, type); }
SelectorType parse_selector_type(const std::string& name) {
  return value_in(selector_types, name, "selector");
}

BitSelector::BitSelector(SelectorType type, int64_t channels, int64_t sites, int64_t candidates,
                         const SelectorOptions& options)
    : type_(type),
      sites_(sites),
      candidates_(candidates),
      preference_(type == SelectorType::offset ? add_parameter("preference", {sites * candidates}) : none) {
  check(channels >= 1 && sites >= 1 && candidates >= 1 && options.hidden >= 1, "[selector] got ", channels,
        " channels, ", sites, " sites, ", candidates, " candidates and ", options.hidden,
        " hidden features, expected at least 1 of each");
  if (type == SelectorType::layer) {
    choose_ = add_linear("choose", 2 * channels, sites * candidates);
    return;
  }
  hidden_ = add_linear("hidden", 2 * channels, options.hidden);
  choose_ =
      add_linear("choose", options.hidden, type == SelectorType::offset ? candidates : sites * candidates);
}

std::shared_ptr<Quantizer> BitSelector::add_quantizer(const std::string& name, bool weight) {
  return add_module(name, make_quantizer("ste", {.bits = 8, .weight = weight}));
}

std::shared_ptr<nn::Linear> BitSelector::add_linear(const std::string& name, int64_t in, int64_t out) {
  const auto linear = add_module(name, std::make_shared<nn::Linear>(in, out));
  const auto input = add_quantizer(name + "_input", false), weight = add_quantizer(name + "_weight", true);
  linear->input_tap.hook = [input](const Tensor& x) {
    const Scope scope("input");
    return (*input)(x);
  };
  linear->weight_tap.hook = [weight](const Tensor& x) { return (*weight)(x); };
  return linear;
}

void BitSelector::start(uint64_t seed, int64_t first) {
  nn::initialise(*this, seed);
  Array weight = choose_->weight.value(), bias = choose_->bias.value();
  weight.assign(random_normal(weight.shape(), Philox(seed, stream_of("choose")), 0.01));
  for (int64_t i = 0; i < bias.size(); ++i) bias.data<float>()[i] = i % candidates_ == first ? 1 : 0;
  bias.bump_version();
}

Tensor BitSelector::operator()(const Tensor& features) {
  const Scope scope("selector");
  Tensor x = channel_moments(features);
  if (hidden_) x = relu((*hidden_)(x));
  if (type_ != SelectorType::offset) return (*choose_)(x);
  // The image's logits for every site: the rows of the weights, again for each site.
  const Scope inner("choose");
  const Tensors rows(static_cast<size_t>(sites_), choose_->weight),
      biases(static_cast<size_t>(sites_), choose_->bias);
  return linear(choose_->input_tap(x).value, choose_->weight_tap(concat(rows, 0)).value,
                concat(biases, 0) + preference_);
}

int64_t BitSelector::macs() const {
  const int64_t outputs = sites_ * candidates_ * choose_->weight.dim(1);
  return outputs + (hidden_ ? hidden_->weight.size() : 0);
}

}  // namespace stairgrad::quant::datafree
