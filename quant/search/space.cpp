#include "space.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <map>

#include "../../autograd/recorder.h"
#include "../cost.h"
#include "../sites.h"

namespace stairgrad::quant {
namespace {

void check_candidates(const std::vector<int>& bits, const char* what) {
  check(!bits.empty(), "[search] got no candidate bits of ", what, ", expected at least one");
  for (size_t j = 0; j < bits.size(); ++j) {
    check(bits[j] >= 1 && bits[j] <= 8, "[search] candidates of ", what, ": got ", bits[j],
          " bits, expected 1 .. 8");
    check(j == 0 || bits[j - 1] < bits[j], "[search] candidates of ", what, ": got ", bits[j], " after ",
          bits[j ? j - 1 : 0], ", expected them to ascend");
  }
}

// In the order of the taps, which is the one in which uniform_policy() looks for the ends.
std::vector<SearchLayer> layers_of(nn::Model& model) {
  const nn::Evaluation evaluation(model);
  std::map<std::string, int64_t> macs;
  for (const LayerCost& layer : count_cost(
           trace([&](const Tensors& in) { return model(in[0]); }, {Array::zeros(model.input_shape())})))
    macs[layer.name] = layer.macs;
  std::vector<SearchLayer> layers;
  for (const nn::NamedTap& t : model.taps())
    if (t.tap->role == nn::Tap::Role::weight) layers.push_back({t.owner(), macs.at(t.owner()), false});
  check(!layers.empty(), "[search] the model has no layers with weights");
  layers.front().end = layers.back().end = true;
  return layers;
}

int64_t bops_of(const SearchLayer& layer, LayerBits bits) { return layer.macs * bits.w * bits.a; }

}  // namespace

SearchSpace::SearchSpace(nn::Model& model, std::vector<int> w_bits, std::vector<int> a_bits, bool ends)
    : layers_(layers_of(model)), w_bits_(std::move(w_bits)), a_bits_(std::move(a_bits)) {
  check_candidates(w_bits_, "weights");
  check_candidates(a_bits_, "activations");
  if (!ends) std::erase_if(layers_, [](const SearchLayer& layer) { return layer.end; });
  check(!layers_.empty(), "[search] the model has only a first and a last layer; search these, too");
}

int64_t SearchSpace::bops(const BitChoice& choice) const {
  check(choice.size() == layers_.size(), "[search] got bits of ", choice.size(), " layers, expected ",
        layers_.size());
  int64_t total = 0;
  for (size_t i = 0; i < layers_.size(); ++i) total += bops_of(layers_[i], choice[i]);
  return total;
}

void SearchSpace::check_budget(int64_t budget, double tolerance) const {
  const int64_t least = bops({w_bits_.front(), a_bits_.front()}),
                most = bops({w_bits_.back(), a_bits_.back()});
  check(budget >= least && static_cast<double>(most) >= static_cast<double>(budget) * (1 - tolerance),
        "[search] got a budget of ", in_giga(static_cast<double>(budget)), " BOPs, expected one from ",
        in_giga(static_cast<double>(least)), " (", w_bits_.front(), '/', a_bits_.front(),
        " bits in all searched layers) to ", in_giga(static_cast<double>(most)), " (", w_bits_.back(), '/',
        a_bits_.back(), ")");
}

std::optional<BitChoice> SearchSpace::best(const Merit& merit, int64_t low, int64_t high) const {
  constexpr int64_t steps = 4096;
  const int64_t step = std::max<int64_t>(1, high / steps);
  struct State {
    double merit = -HUGE_VAL;
    int64_t bops = 0;
    size_t before = 0;  // cell of the layers before
    LayerBits bits;
  };
  // table[i][cell]: the best of the first i layers whose BOPs are within that step.
  std::vector<std::vector<State>> table(layers_.size() + 1,
                                        std::vector<State>(static_cast<size_t>(high / step + 1)));
  table[0][0].merit = 0;
  for (size_t i = 0; i < layers_.size(); ++i)
    for (const int w : w_bits_)
      for (const int a : a_bits_) {
        const double own = merit(i, {w, a});
        const int64_t cost = bops_of(layers_[i], {w, a});
        for (size_t cell = 0; cell < table[i].size(); ++cell) {
          const State& from = table[i][cell];
          if (from.merit == -HUGE_VAL || from.bops + cost > high) continue;
          State& to = table[i + 1][static_cast<size_t>((from.bops + cost) / step)];
          if (from.merit + own > to.merit) to = {from.merit + own, from.bops + cost, cell, {w, a}};
        }
      }
  const State* found = nullptr;
  for (const State& state : table.back())
    if (state.merit > -HUGE_VAL && state.bops >= low && (!found || state.merit > found->merit))
      found = &state;
  if (!found) return {};
  BitChoice choice(layers_.size());
  for (size_t i = layers_.size(); i-- > 0;) {
    choice[i] = found->bits;
    found = &table[i][found->before];
  }
  return choice;
}

Policy SearchSpace::policy(nn::Model& model, const BitChoice& choice, const LayerPolicy& others, Skip skip,
                           Ends ends, const std::string& eight_bit) const {
  check(choice.size() == layers_.size(), "[search] got bits of ", choice.size(), " layers, expected ",
        layers_.size());
  Policy policy = uniform_policy(model, others, skip, ends, eight_bit);
  for (size_t i = 0; i < layers_.size(); ++i)
    policy.layers.at(layers_[i].name) = {choice[i].w, choice[i].a, others.quantizer, others.granularity};
  return policy;
}

BitChoice SearchSpace::choice(const Policy& policy) const {
  BitChoice result;
  for (const SearchLayer& layer : layers_) {
    const auto found = policy.layers.find(layer.name);
    check(found != policy.layers.end(), "[search] the policy has no layer '", layer.name, "'");
    result.push_back({found->second.w_bits, found->second.a_bits});
  }
  return result;
}

Accounting account(nn::Model& model, const Policy& policy) {
  check_policy(policy, model);
  std::map<std::string, int64_t> weights;
  for (const nn::NamedTensor& p : model.parameters()) weights[p.name] = p.tensor.size();
  Accounting total;
  int64_t inner_macs = 0;
  for (const SearchLayer& layer : layers_of(model)) {
    const LayerPolicy& bits = policy.layers.at(layer.name);
    total.macs += layer.macs;
    const int64_t bops = bops_of(layer, {bits.w_bits, bits.a_bits});
    total.bops += bops;
    total.weight_bits += weights.at(layer.name + ".weight") * bits.w_bits;
    if (!layer.end) {
      inner_macs += layer.macs;
      total.quantized += bops;
    }
  }
  const int64_t end_macs = total.macs - inner_macs;
  total.with_8bit_ends = total.quantized + end_macs * 64;
  total.with_float_ends = total.quantized + end_macs * 1024;
  total.all_alike = inner_macs > 0
                        ? std::llround(static_cast<double>(total.quantized) /
                                       static_cast<double>(inner_macs) * static_cast<double>(total.macs))
                        : 0;
  return total;
}

std::string in_giga(double bops, bool binary) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.4g %s", bops / (binary ? 0x1p30 : 1e9), binary ? "Gi" : "G");
  return buffer;
}

int64_t parse_bops(const std::string& word) {
  const std::string units = "KMGT";
  double number = 0;
  const char* end = word.data() + word.size();
  const auto [stop, error] = std::from_chars(word.data(), end, number);
  const size_t unit = end - stop == 1 ? units.find(*stop) : units.size();
  if (end - stop == 1) number *= std::pow(1000.0, static_cast<double>(unit + 1));
  check(error == std::errc() && end - stop <= 1 && unit <= units.size() && number >= 1 && number < 1e18,
        "got '", word, "', expected BOPs such as 365M, 7.4G or 1.2T (K, M, G and T are powers of 1000)");
  return std::llround(number);
}

}  // namespace stairgrad::quant
