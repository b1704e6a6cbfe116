#include "dsq.h"

#include <algorithm>
#include <cmath>

#include "../../autograd/ops.h"
#include "../../kernels/elementwise.h"
#include "backward.h"
#include "ranges.h"

namespace stairgrad::quant {
namespace {

constexpr double min_alpha = 1e-3, max_alpha = 0.999;

Tensor kappa_of(const Tensor& alpha) { return log(2 * pow(alpha, -1) - 1); }

struct DsqBackward final : Op {
  int intervals;
  bool soft;
  double scale;  // of the gradients of alpha, l and u

  DsqBackward(int intervals, bool soft, double scale) : intervals(intervals), soft(soft), scale(scale) {}
  std::string_view name() const override { return "dsq_backward"; }

  Arrays forward(const Arrays& in) const override {
    DsqGradients g = dsq_backward(in[0], in[1], in[2], in[3], in[4], intervals, soft);
    return {g.x, kernels::affine(g.alpha, scale, 0), kernels::affine(g.l, scale, 0),
            kernels::affine(g.u, scale, 0)};
  }

  // The closed forms, with codes and cells as constants.
  Tensors decompose(const Tensors& in) const override {
    const DType wide = in[2].dtype();  // of the parameters, also if x is bf16
    const Tensor gradient = cast(in[0], wide), x = cast(in[1], wide);
    const Tensor alpha = spread(in[2], x.rank()), l = spread(in[3], x.rank()), u = spread(in[4], x.rank());
    const Tensor zero = Array::zeros(x.shape(), x.dtype()),
                 end = Array::full(x.shape(), intervals, x.dtype());
    const Tensor smallest = Array::full(u.shape(), 1.0001 * smallest_range, x.dtype());

    const Tensor v = (x - l) / (maximum(u - l, smallest) / intervals);
    const Tensor inside = greater(v, zero) * greater(end, v);
    const Tensor live = inside * greater(u - l, smallest), counted = gradient * (1 - inside + live);
    const Tensor c = where(inside, v, where(greater(v, zero), end, zero));
    const Tensor cell = minimum(floor(c), end - 1), t = c - cell - 0.5;
    const Tensor kappa = kappa_of(alpha), s = pow(1 - alpha, -1), tanh = stairgrad::tanh(kappa * t);
    const Tensor slope = 0.5 * s * kappa * (1 - square(tanh));
    const Tensor dx = gradient * live * slope;
    const Tensor dalpha = gradient * live * (u - l) * (0.5 / intervals) *
                          (square(s) * tanh - 2 * s * t * (1 - square(tanh)) / (alpha * (2 - alpha)));
    const Tensor upper = (counted * (soft ? cell + 0.5 * (s * tanh + 1) : round(c)) - dx * c) / intervals;
    const Shape& parameters = in[2].shape();
    const auto total = [&](const Tensor& terms) {
      return reshape(sum_to(terms, u.shape()), parameters) * scale;
    };
    return {cast(dx, in[1].dtype()), total(dalpha), total(counted - dx - upper), total(upper)};
  }
  Tensors vjp(const Vjp& v) const override { return vjp_by_decomposition(*this, v); }
  Saved saved() const override { return {.inputs = {0, 1, 2, 3, 4}}; }
  bool mixed_types() const override { return true; }
};

struct DsqOp final : QuantizeOp {
  bool soft;
  double scale;

  DsqOp(Grids grids, bool soft, double scale) : QuantizeOp(std::move(grids)), soft(soft), scale(scale) {}
  std::string_view name() const override { return "dsq"; }
  Tensors vjp(const Vjp& v) const override {
    return stairgrad::apply(std::make_shared<const DsqBackward>(grids[0].hi - grids[0].lo, soft, scale),
                            {v.grad(), v.input(0), v.input(1), v.input(2), v.input(3)});
  }
  Saved saved() const override { return {.inputs = {0, 1, 2, 3}}; }
};

}  // namespace

// Parameters: alpha, u of weights (l = -u); alpha, l, u of activations.
Dsq::Dsq(const QuantizerOptions& options, int64_t channels, const DsqOptions& dsq)
    : Quantizer(options, channels), dsq_(dsq), min_range_(add_buffer("min_range", {groups()})) {
  check(dsq.alpha >= min_alpha && dsq.alpha <= max_alpha, "[dsq] got alpha = ", dsq.alpha, ", expected ",
        min_alpha, " .. ", max_alpha);
  declare("alpha", dsq.learn_alpha);
  if (!options.weight) declare("l", dsq.learn_range);
  declare("u", dsq.learn_range);
}

void Dsq::choose(const Array& x) {
  std::vector<double> low, high, narrowest;
  for (const Statistics& s : statistics(x, groups())) {
    const bool all = options().bits == 8 || dsq_.extremes;  // fine grids can afford the extremes
    double l = 0, u = 0;
    if (options().weight) {
      u = all ? s.max_abs() : std::min(3 * s.deviation, s.max_abs());
      u = std::max(u, smallest_range / 2);
      l = -u;
    } else if (is_signed()) {
      l = std::min(0.0, all ? s.min : std::max(s.mean - 3 * s.deviation, s.min));
      u = std::max(0.0, all ? s.max : std::min(s.mean + 3 * s.deviation, s.max));
    } else {  // half-normal data: its deviation is that of the whole times sqrt(1 - 2 / pi)
      u = all ? s.max : std::min(3 * s.deviation / std::sqrt(1 - 2 / M_PI), s.max);
    }
    u = std::max(u, l + smallest_range);
    low.push_back(l);
    high.push_back(u);
    narrowest.push_back(std::max(smallest_range, 1e-3 * (u - l)));
  }
  min_range_.assign(cast(Array::of(narrowest), min_range_.dtype()));
  set_values(0, std::vector<double>(low.size(), dsq_.alpha));
  if (!options().weight) set_values(1, low);
  set_values(options().weight ? 1 : 2, high);
}

Grids Dsq::grids(const Arrays& parameters) const {
  Grids all;
  const std::vector<double> high = parameters.back().to_vector();
  for (size_t g = 0; g < high.size(); ++g)
    all.push_back(options().weight
                      ? symmetric_grid(high[g], options().bits)
                      : zero_grid(is_signed() ? parameters[1].to_vector()[g] : 0, high[g], options().bits));
  return all;
}

Dsq::Range Dsq::range(const Tensors& in, const Arrays& at) const {
  if (options().weight) return {-in[2], in[2]};
  const Tensor &l = in[2], &u = in[3];
  if (!is_signed()) return {l * 0.0, u};  // l stays 0
  const double low = at[2].item(),
               step = std::max(at[3].item() - low, smallest_range) / intervals(options().bits, false);
  const Grid grid = zero_grid(low, at[3].item(), options().bits);
  const double shift = -static_cast<double>(grid.zero_point) * step - low;
  return {l + shift, u + shift};
}

Tensor Dsq::apply(const Tensors& in) const {
  Arrays at;
  for (const Tensor& t : in) at.push_back(t.value());
  const Range r = range(in, at);
  const Grids on = grids(Arrays(at.begin() + 1, at.end()));
  const double scale = gradient_scale(in[0].shape(), on[0].hi - on[0].lo);
  return quantize(DsqOp(on, dsq_.soft_direct_term, scale), {in[0], in[1], r.l, r.u});
}

Tensor Dsq::surrogate(const Tensors& in, const Arrays& at) const {
  const Tensor& x = in[0];
  const int n = intervals(options().bits, options().weight);
  const auto phi = [](const Tensor& alpha, const Tensor& t) {
    const Tensor kappa = kappa_of(alpha);
    return tanh(kappa * t) / tanh(0.5 * kappa);
  };
  const auto full = [&](const Tensor& parameter) {
    return broadcast_to(spread(parameter, x.rank()), x.shape());
  };
  const Range r = range(in, at);
  const Tensor alpha = full(in[1]), l = full(r.l), u = full(r.u), delta = (u - l) / n;

  // The cell, and what the hard code adds to the soft one, at the sample point.
  const Tensors sample(at.begin(), at.end());
  const Range r0 = range(sample, at);
  const Tensor l0 = full(r0.l), u0 = full(r0.u), v0 = (sample[0] - l0) / ((u0 - l0) / n);
  const Tensor end = Array::full(x.shape(), n, x.dtype()), zero = Array::zeros(x.shape(), x.dtype());
  const Tensor above = greater_equal(v0, end), inside = greater(v0, zero) * (1 - above);
  const Tensor cell = minimum(floor(v0), end - 1);
  const Tensor soft0 = cell + 0.5 * (phi(full(sample[1]), v0 - cell - 0.5) + 1);
  const Tensor offset = dsq_.soft_direct_term ? zero : round(v0) - soft0;

  const Tensor t = (x - l) / delta - cell - 0.5;
  const Tensor curve = l + delta * (cell + 0.5 * (phi(alpha, t) + 1) + offset);
  return where(inside, curve, where(above, u, l));
}

void Dsq::project() {
  std::vector<double> alpha = values(0), u = values(options().weight ? 1 : 2);
  std::vector<double> l = options().weight ? std::vector<double>() : values(1);
  const std::vector<double> narrowest = min_range_.to_vector();
  for (size_t g = 0; g < u.size(); ++g) {
    alpha[g] = std::clamp(alpha[g], min_alpha, max_alpha);
    if (options().weight) {
      u[g] = std::max(u[g], narrowest[g] / 2);
    } else {
      l[g] = is_signed() ? std::min(l[g], 0.0) : 0;
      u[g] = std::max({u[g], l[g] + narrowest[g], 0.0});
    }
  }
  set_values(0, alpha);
  if (!options().weight) set_values(1, l);
  set_values(options().weight ? 1 : 2, u);
}

QuantizerEntry dsq_entry() {
  return {[](const QuantizerOptions& options, int64_t channels) {
            const QuantizerSettings& s = options.settings;
            return std::make_shared<Dsq>(options, channels,
                                         DsqOptions{.alpha = s.number("alpha"),
                                                    .learn_alpha = s.flag("learn_alpha"),
                                                    .soft_direct_term = s.choice("direct") == "soft",
                                                    .learn_range = s.flag("learn_range"),
                                                    .extremes = s.choice("init") == "extremes"});
          },
          {SettingRule::number("alpha", 0.2, min_alpha, max_alpha), SettingRule::flag("learn_alpha", true),
           SettingRule::flag("learn_range", true), SettingRule::choice("direct", {"hard", "soft"}),
           SettingRule::choice("init", {"deviations", "extremes"})},
          "Gong et al., ICCV'19; learns alpha, l and u"};
}

}  // namespace stairgrad::quant
