#include "dsq.h"

#include <algorithm>
#include <cmath>

#include "../../autograd/ops.h"
#include "dsq_curve.h"
#include "ranges.h"

namespace stairgrad::quant {
namespace {

constexpr double min_alpha = 1e-3, max_alpha = 0.999;

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
  std::vector<double> low, high, range;
  for (const ValueRange& r : initial_ranges(dsq_.init, x, groups(), options().bits, symmetric())) {
    low.push_back(symmetric() ? std::min(r.low, -smallest_range / 2) : r.low);
    high.push_back(std::max(r.high, low.back() + smallest_range));
    range.push_back(high.back() - low.back());
  }
  min_range_.assign(cast(Array::of(floors(range, smallest_range)), min_range_.dtype()));
  set_values(0, std::vector<double>(low.size(), dsq_.alpha));
  if (!options().weight) set_values(1, low);
  set_values(options().weight ? 1 : 2, high);
}

Grids Dsq::grids(const Arrays& parameters) const {
  Grids all;
  const std::vector<double> high = parameters.back().to_vector();
  for (size_t g = 0; g < high.size(); ++g)
    all.push_back(symmetric()
                      ? symmetric_grid(high[g], options().bits)
                      : zero_grid(is_signed() ? parameters[1].to_vector()[g] : 0, high[g], options().bits));
  return all;
}

// {x, alpha, l, u} of {x, parameters...}, with the range moved by what puts zero on a level at the sample
// point.
Tensors Dsq::curve(const Tensors& in, const Arrays& at) const {
  if (options().weight) return {in[0], in[1], -in[2], in[2]};
  const Tensor &l = in[2], &u = in[3];
  if (symmetric()) return {in[0], in[1], 0.0 * l - u, u};  // u alone has a gradient
  if (!is_signed()) return {in[0], in[1], 0.0 * l, u};     // l stays 0
  const double low = at[2].item(),
               step = std::max(at[3].item() - low, smallest_range) / intervals(options().bits, false);
  const Grid grid = zero_grid(low, at[3].item(), options().bits);
  const double shift = -static_cast<double>(grid.zero_point) * step - low;
  return {in[0], in[1], l + shift, u + shift};
}

Tensor Dsq::apply(const Tensors& in) const {
  Arrays at;
  for (const Tensor& t : in) at.push_back(t.value());
  const Grids on = grids(Arrays(at.begin() + 1, at.end()));
  const double scale = gradient_scale(in[0].shape(), on[0].hi - on[0].lo);
  return quantize(DsqOp(on, dsq_.soft_direct_term, scale), curve(in, at));
}

Tensor Dsq::surrogate(const Tensors& in, const Arrays& at) const {
  const int n = intervals(options().bits, options().weight);
  return dsq_surrogate(curve(in, at), curve(Tensors(at.begin(), at.end()), at), n, dsq_.soft_direct_term);
}

void Dsq::project() {
  std::vector<double> alpha = values(0), u = values(options().weight ? 1 : 2);
  std::vector<double> l = options().weight ? std::vector<double>(u.size()) : values(1);
  const std::vector<double> narrowest = min_range_.to_vector();
  for (size_t g = 0; g < u.size(); ++g) {
    alpha[g] = std::clamp(alpha[g], min_alpha, max_alpha);
    if (symmetric()) {
      u[g] = std::max(u[g], narrowest[g] / 2);
      l[g] = -u[g];
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
                                                    .init = s.choice("init")});
          },
          {SettingRule::number("alpha", 0.2, min_alpha, max_alpha), SettingRule::flag("learn_alpha", true),
           SettingRule::flag("learn_range", true), SettingRule::choice("direct", {"hard", "soft"}),
           init_rule(), gradient_scale_rule()},
          "Gong et al., ICCV'19; learns alpha, l and u"};
}

}  // namespace stairgrad::quant
