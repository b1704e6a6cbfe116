// A policy for people: the bits of each layer, and what they cost.
#pragma once

#include "../../quant/cost.h"
#include "../../quant/policy.h"
#include "../../quant/search/space.h"
#include "report.h"
#include "value.h"

namespace stairgrad::examples {

/// MACs, bits, BOPs and bytes of weights of each layer.
Table policy_table(nn::Model& model, const quant::Policy& policy);
/// The BOPs of a policy by every convention, in units of 1e9 and of 2^30, and what papers write for the
/// network `name`, if these are its MACs as it was published.
Table accounting_table(const quant::Accounting& accounting, const std::string& name);
/// Bars of weights and activations of each layer, as they were counted or by a policy.
void add_bits(Report& report, const std::vector<quant::LayerCost>& cost);
void add_bits(Report& report, const quant::Policy& policy, nn::Model& model);
/// cost.* of result.json. cost.bops counts all layers, as qat does.
void record(const quant::Accounting& accounting, Value& result);
/// bits.w.LAYER and bits.a.LAYER of result.json.
void record_bits(const quant::Policy& policy, Value& result);

/// Milliseconds that the integer runtime takes for one image with this policy: lowers the model with its
/// sites calibrated on random images. NaN and a reason for a policy that has no integer form.
struct MeasuredLatency {
  double ms;
  int64_t bytes;
  std::string reason;
};
MeasuredLatency measure_latency(nn::Model& model, const quant::Policy& policy);

}  // namespace stairgrad::examples
