#include "risk.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "../../autograd/ops.h"
#include "../names.h"

namespace stairgrad::quant {
namespace {

constexpr Named<CapacityRule> capacity_rules[] = {{CapacityRule::linear, "linear"},
                                                  {CapacityRule::convex, "convex"},
                                                  {CapacityRule::concave, "concave"},
                                                  {CapacityRule::reciprocal, "reciprocal"},
                                                  {CapacityRule::constant, "constant"}};
constexpr Named<ExplainedClass> explained_classes[] = {
    {ExplainedClass::own, "own"}, {ExplainedClass::teacher, "teacher"}, {ExplainedClass::label, "label"}};

// -log softmax(logits)[label] of each image.
std::vector<double> losses_of(const Array& logits, const Array& labels) {
  const NoGrad no_grad;
  const Tensor chosen = one_hot(labels, logits.dim(1), logits.dtype());
  return sum(log_softmax(Tensor(logits)) * chosen * -1.0, {-1}).value().to_vector();
}

}  // namespace

std::vector<std::string> capacity_rule_names() { return names_in(capacity_rules); }
CapacityRule parse_capacity_rule(const std::string& name) {
  return value_in(capacity_rules, name, "exponent");
}
ExplainedClass parse_explained_class(const std::string& name) {
  return value_in(explained_classes, name, "explain");
}

double capacity_exponent(const CapacityOptions& o, const std::vector<Supernet::ExpectedBits>& bits) {
  if (o.rule == CapacityRule::constant) return o.constant;
  double mean = 0, reciprocal = 0;
  for (const Supernet::ExpectedBits& b : bits) {
    mean += (b.w + b.a) / 2 / static_cast<double>(bits.size());
    reciprocal += 1 / (b.w * b.a) / static_cast<double>(bits.size());
  }
  if (o.rule == CapacityRule::reciprocal) return o.product * reciprocal;
  const double t = std::clamp((8 - mean) / 6, 0.0, 1.0);
  const double shape = o.rule == CapacityRule::convex    ? t * t
                       : o.rule == CapacityRule::concave ? std::sqrt(t)
                                                         : t;
  return o.at_8_bits + (o.at_2_bits - o.at_8_bits) * shape;
}

std::vector<double> hardness_exponents(double p, const std::vector<double>& losses, double beta) {
  const auto n = static_cast<double>(losses.size());
  const double mean = std::accumulate(losses.begin(), losses.end(), 0.0) / n;
  std::vector<double> hardness;
  for (const double loss : losses) hardness.push_back(mean > 0 ? std::clamp(loss / mean, 0.5, 2.0) : 1);
  const double mean_hardness = std::accumulate(hardness.begin(), hardness.end(), 0.0) / n;
  for (double& h : hardness) h = p * std::max(0.1, 1 + beta * (h - mean_hardness));
  return hardness;
}

RiskOptions r_gmpq(RiskOptions options) {
  options.levels = 3;
  options.beta = 0.25;
  return options;
}

Risk generalisation_risk(nn::Model& model, const Supernet& supernet, const nn::Explainer& teacher,
                         const Tensor& images, const Array& labels, const RiskOptions& o,
                         bool measure_agreement) {
  const size_t blocks = nn::blocks_until(model, o.block);
  std::vector<int32_t> classes;
  if (o.explained == ExplainedClass::label)
    classes.assign(labels.data<int32_t>(), labels.data<int32_t>() + labels.size());
  const nn::Attribution seen = teacher(images.detach(), o.block, classes);
  Array target = seen.map.value();
  if (o.explained == ExplainedClass::teacher) classes = seen.classes;
  const nn::Attribution own = nn::attribute(model, images, blocks, classes, /*create_graph=*/true);
  Risk risk;
  risk.logits = cast(own.logits, DType::f32);
  if (measure_agreement) risk.agreement = nn::mean_of_numbers(nn::spearman(own.map.value(), target));

  const double p = capacity_exponent(o.capacity, supernet.expected_bits());
  nn::ImitationOptions imitation{.exponents = {p}, .top_k = o.top_k, .skip_empty = o.skip_empty};
  if (o.beta != 0)
    imitation.exponents = hardness_exponents(p, losses_of(risk.logits.value(), labels), o.beta);
  risk.exponent = std::accumulate(imitation.exponents.begin(), imitation.exponents.end(), 0.0) /
                  static_cast<double>(imitation.exponents.size());
  Tensor map = own.map;
  if (o.levels > 0) {
    const Array cells = nn::quad_tree(target, o.tolerance, o.levels);
    map = nn::cell_means(map, cells);
    target = nn::cell_means(target, cells).value();
  }
  const nn::Imitation imitated = nn::imitate(map, target, imitation);
  risk.imitation = imitated.loss;
  risk.empty = imitated.empty;
  return risk;
}

}  // namespace stairgrad::quant
