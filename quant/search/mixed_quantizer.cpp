#include "mixed_quantizer.h"

#include <algorithm>
#include <cmath>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../quantizers/backward.h"

namespace stairgrad::quant {
namespace {

using Candidates = std::vector<std::shared_ptr<Quantizer>>;

Tensor weighted_sum(const Tensors& values, const Tensor& shares) {
  Tensor total;
  for (size_t j = 0; j < values.size(); ++j) {
    const auto first = static_cast<int64_t>(j);
    const Tensor term = values[j] * slice(shares, 0, first, first + 1);
    total = total.defined() ? total + term : term;
  }
  return total;
}

// {x, shares, parameters (one of each candidate)} as mix_by_composition takes them.
Tensor compose(const Tensors& in, const Candidates& candidates) {
  std::vector<Tensors> parameters;
  for (size_t j = 0; j < candidates.size(); ++j)
    parameters.push_back({slice(in[2], 0, static_cast<int64_t>(j), static_cast<int64_t>(j) + 1)});
  return mix_by_composition(in[0], in[1], candidates, parameters);
}

Grids grids_of(const std::vector<RoundingRule>& rules) {
  Grids grids;
  for (const RoundingRule& rule : rules) grids.push_back(rule.grid);
  return grids;
}

// {u, x, shares, parameters} -> gradients of sum(u * mixture) by x, shares and parameters.
struct MixRoundedBackward final : Op {
  Candidates candidates;
  std::vector<RoundingRule> rules;

  MixRoundedBackward(Candidates candidates, std::vector<RoundingRule> rules)
      : candidates(std::move(candidates)), rules(std::move(rules)) {}
  std::string_view name() const override { return "mix_rounded_backward"; }
  Arrays forward(const Arrays& in) const override {
    MixedGradients g = mixed_backward(in[0], in[1], in[2], grids_of(rules));
    const std::vector<double> share = in[2].to_vector(), rounding = g.rounding.to_vector(),
                              below = g.below.to_vector(), above = g.above.to_vector();
    std::vector<double> parameters;
    for (size_t j = 0; j < rules.size(); ++j) {
      const RoundingRule& r = rules[j];
      parameters.push_back(share[j] * r.scale *
                           (r.rounding * rounding[j] + r.below * below[j] + r.above * above[j]));
    }
    return {g.x, g.values, cast(Array::of(parameters), in[3].dtype())};
  }
  Tensors decompose(const Tensors& in) const override {
    Tensors at;
    for (size_t i = 1; i < in.size(); ++i)
      at.push_back(in[i].requires_grad() ? in[i] : Tensor::leaf(in[i].value()));
    return grad({compose(at, candidates)}, at,
                {.create_graph = true, .grad_outputs = {in[0]}, .allow_unused = true});
  }
  Tensors vjp(const Vjp& v) const override { return vjp_by_decomposition(*this, v); }
  Saved saved() const override { return {.inputs = {0, 1, 2, 3}}; }
  bool mixed_types() const override { return true; }
};

// {x, shares, parameters} -> mixture, in one pass.
struct MixRounded final : Op {
  Candidates candidates;
  std::vector<RoundingRule> rules;

  MixRounded(Candidates candidates, std::vector<RoundingRule> rules)
      : candidates(std::move(candidates)), rules(std::move(rules)) {}
  std::string_view name() const override { return "mix_rounded"; }
  Arrays forward(const Arrays& in) const override { return {mix_on_grids(in[0], in[1], grids_of(rules))}; }
  Tensors decompose(const Tensors& in) const override { return {compose(in, candidates)}; }
  Tensors vjp(const Vjp& v) const override {
    return stairgrad::apply(std::make_shared<const MixRoundedBackward>(candidates, rules),
                            {v.grad(), v.input(0), v.input(1), v.input(2)});
  }
  Saved saved() const override { return {.inputs = {0, 1, 2}}; }
  bool mixed_types() const override { return true; }
};

}  // namespace

Tensor mix_by_composition(const Tensor& x, const Tensor& shares, const Candidates& candidates,
                          const std::vector<Tensors>& parameters) {
  const Tensor wide = x.dtype() == DType::bf16 ? cast(x, DType::f32) : x;
  Tensors values;
  for (size_t j = 0; j < candidates.size(); ++j) {
    Tensors in = {candidates[j]->transform(wide)};
    in.insert(in.end(), parameters[j].begin(), parameters[j].end());
    values.push_back(candidates[j]->apply(in));
  }
  return cast(weighted_sum(values, shares), x.dtype());
}

MixedQuantizer::MixedQuantizer(const std::string& quantizer, std::vector<int> bits, QuantizerOptions options,
                               int64_t channels)
    : logits(add_parameter("logits", {static_cast<int64_t>(bits.size())})), bits_(std::move(bits)) {
  check(!bits_.empty(), "[search] got no candidate bits, expected at least one");
  for (size_t j = 0; j < bits_.size(); ++j) {
    check(bits_[j] >= 1 && bits_[j] <= 8, "[search] got the candidate of ", bits_[j],
          " bits, expected 1 .. 8");
    check(j == 0 || bits_[j - 1] < bits_[j], "[search] got the candidates ", bits_[j ? j - 1 : 0], " and ",
          bits_[j], " bits in this order, expected them to ascend");
    options.bits = bits_[j];
    candidates_.push_back(add_module(text(bits_[j]), make_quantizer(quantizer, options, channels)));
  }
}

void MixedQuantizer::reset(uint64_t, const std::string&) {
  Array values = logits.value();
  values.assign(Array::full(values.shape(), 0.01, values.dtype()));
}

Tensor MixedQuantizer::shares() const { return softmax(logits / softening_.temperature); }

std::vector<double> MixedQuantizer::log_shares() const {
  std::vector<double> values = logits.value().to_vector();
  for (double& v : values) v /= softening_.temperature;
  const double largest = *std::max_element(values.begin(), values.end());
  double sum = 0;
  for (const double v : values) sum += std::exp(v - largest);
  for (double& v : values) v -= largest + std::log(sum);
  return values;
}

Tensor MixedQuantizer::drawn_shares() const {
  if (!softening_.gumbel) return shares();
  const Philox noise(softening_.seed, stream_of(text(name(), " step ", softening_.step)));
  return gumbel_softmax(logits, softening_.temperature, noise);
}

Tensor MixedQuantizer::expected_bits() const {
  const std::vector<double> bits(bits_.begin(), bits_.end());
  return sum(shares() * Tensor(cast(Array::of(bits), logits.dtype())));
}

size_t MixedQuantizer::chosen(bool* tied) const {
  const std::vector<double> values = logits.value().to_vector();
  const double largest = *std::max_element(values.begin(), values.end()), expected = expected_bits().item();
  size_t best = values.size();
  int equals = 0;
  for (size_t j = 0; j < values.size(); ++j) {
    if (values[j] != largest) continue;
    ++equals;
    if (best == values.size() || std::abs(bits_[j] - expected) < std::abs(bits_[best] - expected)) best = j;
  }
  check(best < values.size(), "[search] ", name(), ": the logits are not numbers; the search diverged");
  if (tied) *tied = equals > 1;
  return best;
}

Tensor MixedQuantizer::operator()(const Tensor& x) {
  for (const auto& candidate : candidates_)
    if (!candidate->initialised()) candidate->initialise(x.value());
  std::vector<RoundingRule> rules;
  std::vector<Tensors> parameters;
  for (const auto& candidate : candidates_) {
    if (const auto rule = candidate->rounding_rule(x.shape())) rules.push_back(*rule);
    parameters.push_back(candidate->own_parameters());
  }
  const Tensor pi = drawn_shares();
  if (rules.size() == candidates_.size()) {
    Tensors own;
    for (const Tensors& p : parameters) own.push_back(p[0]);
    return apply_op(MixRounded(candidates_, rules), {x, pi, concat(own, 0)});
  }
  // Called as they are, quantizers that follow the data see it.
  const Tensor wide = x.dtype() == DType::bf16 ? cast(x, DType::f32) : x;
  Tensors values;
  for (const auto& candidate : candidates_) values.push_back((*candidate)(wide).value);
  return cast(weighted_sum(values, pi), x.dtype());
}

void MixedQuantizer::project() {
  for (const auto& candidate : candidates_) candidate->project();
}

}  // namespace stairgrad::quant
