#include "policy_description.h"

#include <cmath>
#include <map>

#include "../../autograd/recorder.h"
#include "../../quant/lower.h"
#include "../../quant/sites.h"
#include "deployment.h"

namespace stairgrad::examples {
namespace {

// At the bits of the policy.
std::vector<quant::LayerCost> cost_of(nn::Model& model, const quant::Policy& policy) {
  const nn::Evaluation evaluation(model);
  quant::detach_sites(model);
  std::vector<quant::LayerCost> cost = quant::count_cost(
      trace([&](const Tensors& in) { return model(in[0]); }, {Array::zeros(model.input_shape())}));
  for (quant::LayerCost& layer : cost) {
    layer.w_bits = policy.layers.at(layer.name).w_bits;
    layer.a_bits = policy.layers.at(layer.name).a_bits;
  }
  return cost;
}

// What papers print for a float network on 224 x 224 pixels: MACs rounded to 0.01 G, times 32 x 32.
struct Published {
  int64_t macs;
  std::string bops;
};
const std::map<std::string, Published> papers = {
    {"resnet18", {1'814'073'344, "1853.4G (1.81 GMAC)"}},
    {"resnet50", {4'089'184'256, "3952.6G (3.86 GMAC: stride in the first 1x1)"}},
    {"mobilenet_v2", {300'774'272, "337.9G (0.33 GMAC)"}}};

}  // namespace

Table policy_table(nn::Model& model, const quant::Policy& policy) {
  Table table({"layer", "MACs", "W", "A", "BOPs", "bytes of weights"});
  for (const quant::LayerCost& layer : cost_of(model, policy))
    table.row({layer.name, count(layer.macs), text(layer.w_bits), text(layer.a_bits),
               scaled(static_cast<double>(layer.bops())),
               bytes(static_cast<double>(layer.params) * layer.w_bits / 8)});
  return table;
}

Table accounting_table(const quant::Accounting& a, const std::string& name) {
  Table table({"", "1e9", "2^30"});
  const auto add = [&](const std::string& what, double value) {
    table.row({what, quant::in_giga(value), quant::in_giga(value, /*binary=*/true)});
  };
  add("MACs", static_cast<double>(a.macs));
  add("BOPs, all but the first and last layer (--bops without --search-ends)",
      static_cast<double>(a.quantized));
  add("BOPs, these two with 8 x 8 bits", static_cast<double>(a.with_8bit_ends));
  add("BOPs, these two with 32 x 32 bits", static_cast<double>(a.with_float_ends));
  add("BOPs, these two with the mean bits of the others", static_cast<double>(a.all_alike));
  add("BOPs, all layers at the bits of the policy", static_cast<double>(a.bops));
  add("BOPs of the float network", static_cast<double>(a.macs) * 1024);
  if (const auto found = papers.find(name); found != papers.end() && found->second.macs == a.macs)
    table.row({"which papers write as", found->second.bops, ""});
  return table;
}

void add_bits(Report& report, const std::vector<quant::LayerCost>& cost) {
  std::vector<BarRow> bars;
  for (const quant::LayerCost& layer : cost)
    bars.push_back({layer.name, {static_cast<double>(layer.w_bits), static_cast<double>(layer.a_bits)}});
  report.bars("Bits of each layer", {"weights", "activations"}, bars);
}
void add_bits(Report& report, const quant::Policy& policy, nn::Model& model) {
  add_bits(report, cost_of(model, policy));
}

void record(const quant::Accounting& a, Value& result) {
  result.set("cost.macs", a.macs);
  result.set("cost.bops", a.bops);
  result.set("cost.bops_inner", a.quantized);
  result.set("cost.bops_8bit_ends", a.with_8bit_ends);
  result.set("cost.bops_float_ends", a.with_float_ends);
  result.set("cost.bops_all_alike", a.all_alike);
  result.set("cost.weight_bytes", a.weight_bits / 8);
}

void record_bits(const quant::Policy& policy, Value& result) {
  for (const auto& [name, layer] : policy.layers) {
    result.set("bits.w." + name, layer.w_bits);
    result.set("bits.a." + name, layer.a_bits);
  }
}

MeasuredLatency measure_latency(nn::Model& model, const quant::Policy& policy) {
  try {
    const auto sites = quant::attach_sites(model, policy);
    quant::calibrate(model, random_normal(model.input_shape(8), Philox(0)));
    const nn::Evaluation evaluation(model);
    const auto lowered = quant::lower(
        trace([&](const Tensors& in) { return model(in[0]); }, {Array::zeros(model.input_shape())}));
    quant::detach_sites(model);
    return {integer_speed(lowered).latency_ms, quant::integer::parameter_bytes(lowered), ""};
  } catch (const argument_error& error) {
    quant::detach_sites(model);
    return {NAN, 0, error.what()};
  }
}

}  // namespace stairgrad::examples
