#include "recipes.h"

#include <algorithm>

#include "../names.h"

namespace stairgrad::quant {
namespace {

constexpr Named<PtqMethod> methods[] = {{PtqMethod::rtn, "rtn"},
                                        {PtqMethod::adaround, "adaround"},
                                        {PtqMethod::brecq, "brecq"},
                                        {PtqMethod::qdrop, "qdrop"},
                                        {PtqMethod::pdquant, "pdquant"}};
constexpr Named<EndsPreset> presets[] = {{EndsPreset::qdrop, "qdrop"},
                                         {EndsPreset::brecq, "brecq"},
                                         {EndsPreset::pdquant, "pdquant"},
                                         {EndsPreset::same, "same"}};

}  // namespace

std::vector<std::string> method_names() { return names_in(methods); }
PtqMethod parse_method(const std::string& name) { return value_in(methods, name, "method"); }
std::string to_string(PtqMethod method) { return name_in(methods, method); }

std::vector<std::string> preset_names() { return names_in(presets); }
EndsPreset parse_preset(const std::string& name) { return value_in(presets, name, "preset"); }
std::string to_string(EndsPreset preset) { return name_in(presets, preset); }

ReconstructionOptions ptq_recipe(PtqMethod method, int64_t iterations) {
  check(iterations >= 1, "[ptq] got ", iterations, " iterations, expected at least 1");
  const double faster = std::max(1.0, 20000 / static_cast<double>(iterations));
  ReconstructionOptions recipe;
  Phase phase;
  phase.iterations = iterations;
  switch (method) {
    case PtqMethod::rtn:
      return recipe;
    case PtqMethod::adaround:
    case PtqMethod::brecq:
      phase.name = "rounding";
      phase.by_layer = method == PtqMethod::adaround;
      phase.learn_steps = phase.activations = false;
      phase.keep_input = 1;
      phase.replacement = method == PtqMethod::adaround;
      recipe.phases = {phase};
      if (method == PtqMethod::adaround) break;
      phase.name = "steps";
      phase.learn_weights = false;
      phase.learn_steps = phase.activations = true;
      phase.keep_activation = 1;
      phase.iterations = std::max<int64_t>(1, iterations / 4);
      phase.lr_step = 4e-4;
      phase.objectives.power = 2.4;
      recipe.phases.push_back(phase);
      break;
    case PtqMethod::pdquant:
      phase.lr_rounding = 3e-3;
      phase.objectives.prediction = 10;
      recipe.ranges_by_block = true;
      [[fallthrough]];
    case PtqMethod::qdrop:
      phase.name = to_string(method);
      recipe.phases = {phase};
      break;
  }
  for (Phase& p : recipe.phases) {
    p.lr_rounding = std::min(p.lr_rounding * faster, 1e-2);
    p.lr_step = std::min(p.lr_step * faster, 1e-3);
  }
  return recipe;
}

Policy preset_policy(nn::Model& model, const LayerPolicy& layer, Skip skip, EndsPreset preset) {
  Policy policy = uniform_policy(model, layer, skip, preset == EndsPreset::same ? Ends::same : Ends::eight);
  if (preset == EndsPreset::same || layer.a_bits > 8) return policy;
  std::vector<std::string> layers, tensors;
  for (const nn::NamedTap& t : model.taps()) {
    if (t.tap->role == nn::Tap::Role::weight) layers.push_back(t.owner());
    if (t.tap->role == nn::Tap::Role::tensor) tensors.push_back(t.name);
  }
  const std::map<std::string, std::string> readers = readers_of_tensors(model);
  const auto is_read = [&](const std::string& tensor) {
    return std::ranges::any_of(readers, [&](const auto& reader) { return reader.second == tensor; });
  };
  // What the last layer's pooling reads.
  if (!tensors.empty() && !is_read(tensors.back()) && skip != Skip::floating)
    policy.tensors[tensors.back()].bits = 8;
  if (preset != EndsPreset::brecq || layers.size() < 2) return policy;
  // The first layer's output is what the second reads, and whoever else reads it.
  policy.layers[layers[1]].a_bits = 8;
  const auto stored = readers.find(layers[1]);
  if (stored == readers.end() || skip != Skip::shared) return policy;
  policy.tensors[stored->second].bits = 8;
  for (const auto& [reader, tensor] : readers)
    if (tensor == stored->second) policy.layers[reader].a_bits = 8;
  return policy;
}

}  // namespace stairgrad::quant
