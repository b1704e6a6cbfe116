#include "model_list.h"

#include <cstdio>
#include <optional>

#include "../../nn/model.h"
#include "../../quant/cost.h"
#include "../../quant/sites.h"

namespace stairgrad::examples {
namespace {

// What a model is quantized with, if the words are for it.
class PolicyChoice {
 public:
  explicit PolicyChoice(const std::string& words) {
    int end = 0;
    uniform_ = std::sscanf(words.c_str(), "w%da%d%n", &bits_.w_bits, &bits_.a_bits, &end) == 2 &&
               static_cast<size_t>(end) == words.size();
    if (!uniform_) file_ = quant::Policy::load(words);
  }

  std::optional<quant::Policy> policy_for(nn::Model& model) const {
    if (uniform_) return quant::uniform_policy(model, bits_);
    try {
      quant::check_policy(file_, model);
      return file_;
    } catch (const argument_error&) {
      return {};
    }
  }

 private:
  bool uniform_;
  quant::LayerPolicy bits_;
  quant::Policy file_;
};

std::vector<quant::LayerCost> cost_of(nn::Model& model) {
  const nn::Evaluation evaluation(model);
  return quant::count_cost(
      trace([&](const Tensors& in) { return model(in[0]); }, {Array::zeros(model.input_shape())}));
}

}  // namespace

Table model_list(const std::string& policy) {
  std::vector<std::string> header = {"network", "input", "parameters", "MACs"};
  std::optional<PolicyChoice> choice;
  if (!policy.empty()) {
    header.push_back("BOPs");
    choice.emplace(policy);
  }
  Table table(header);
  bool fits = policy.empty();
  for (const std::string& name : nn::model_names()) {
    const auto model = nn::make_model(name);
    const int64_t parameters = model->parameter_count();
    std::optional<quant::Policy> own;
    if (choice) own = choice->policy_for(*model);
    if (own) quant::attach_sites(*model, *own);
    fits = fits || own;
    const auto cost = cost_of(*model);
    const Shape input = model->input_shape();
    std::vector<std::string> row = {name, text(input[1], " x ", input[2]), count(parameters),
                                    count(quant::total_macs(cost))};
    if (choice) row.push_back(own ? count(quant::total_bops(cost)) : "-");
    table.row(row);
  }
  check(fits, "--policy ", policy, ": its layers are those of no network of the zoo");
  return table;
}

}  // namespace stairgrad::examples
