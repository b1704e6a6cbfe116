#include "quantization.h"

#include <algorithm>

namespace stairgrad::examples {

void QuantizationOptions::add_to(Options& o) {
  o.add("--quantizer", quantizer,
        "how to quantize, such as dsq:alpha=0.2,learn_alpha=no\n" + quant::quantizer_help());
  o.add("--wbits", w_bits,
        "bits of weights, 1 to 8, or 32 for floats; of the first and last layer: see --ends")
      .between(1, 32);
  o.add("--abits", a_bits, "bits of activations").between(1, 32);
  o.add("--granularity", granularity, "weights of a layer share a grid, or those of an output channel")
      .one_of({"layer", "channel"});
  o.add("--skip", skip,
        "where the skip of a residual add lives: in 8 bits of its own, on the layer's grid, or in floats")
      .one_of({"u8", "shared", "float"});
  o.add("--ends", ends, "bits of the first and last layer: 8, as all others, or floats")
      .one_of({"8", "same", "float"});
  o.add("--eight-bit-quantizer", eight_bit_quantizer,
        "for ends and skips that have 8 bits, such as lsq beside dorefa, whose fixed range would clip images "
        "(default: --quantizer)");
  o.add("--policy", policy, "a policy file, which says all of the above layer by layer");
  o.add("--integer-forward", integer_forward,
        "convolve codes, with exact sums, where both sides are quantized; without it, values");
}

quant::Policy QuantizationOptions::policy_for(nn::Model& model) const {
  if (policy.empty()) {
    quant::check_quantizer(quantizer);
    if (!eight_bit_quantizer.empty()) quant::check_quantizer(eight_bit_quantizer);
    return quant::uniform_policy(model, {w_bits, a_bits, quantizer, granularity}, quant::parse_skip(skip),
                                 quant::parse_ends(ends), eight_bit_quantizer);
  }
  return quant::Policy::load(policy, model);
}

std::shared_ptr<quant::Sites> QuantizationOptions::attach(nn::Model& model,
                                                          const quant::Policy& wanted) const {
  const auto sites = quant::attach_sites(model, wanted);
  if (integer_forward) sites->set_arithmetic(model, nn::Arithmetic::integers);
  return sites;
}

std::vector<nn::ParameterGroup> quantized_groups(const nn::Model& model, const quant::Sites& sites,
                                                 double weight_decay, double quantizer_lr) {
  std::vector<nn::ParameterGroup> groups = decayed_groups(model, weight_decay);
  nn::ParameterGroup decaying{{}, quantizer_lr, weight_decay}, other{{}, quantizer_lr, 0};
  std::map<std::string, nn::ParameterGroup*> group_of;
  for (const quant::Sites::Site& site : sites.sites())
    for (const nn::NamedTensor& p : site.quantizer->parameters())
      group_of["sites." + site.name + '.' + p.name] = site.quantizer->traits().decay ? &decaying : &other;
  for (nn::ParameterGroup& group : groups)
    std::erase_if(group.parameters, [&](const nn::NamedTensor& p) {
      const auto found = group_of.find(p.name);
      if (found == group_of.end()) return false;
      found->second->parameters.push_back(p);
      return true;
    });
  groups.push_back(decaying);
  groups.push_back(other);
  return groups;
}

void calibrate(nn::Model& model, const Task& task, uint64_t seed, int64_t images) {
  const data::LoaderOptions options{
      .batch = std::min(images, task.train.size()), .shuffle = true, .seed = seed};
  data::Loader loader(task.train, task.test_transform(), options);
  loader.start(0);
  data::Batch batch;
  loader.next(batch);
  quant::calibrate(model, batch.images);
}

}  // namespace stairgrad::examples
