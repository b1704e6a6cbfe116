// PACT (Choi et al., 2018): activations are clipped to [0, alpha] and rounded; alpha is learned.
//
//   dy/dx = 1 for 0 < x < alpha, else 0;   dy/dalpha = 1 for x >= alpha, else 0 (eq. 3)
//
// The paper puts the network's weight decay on alpha, without which it only grows while clipping costs loss:
// that is the optimiser's to do (QuantizerTraits::decay). Weights are DoReFa's, as in the paper, or SAWB's
// (Choi et al., MLSys'19): rounded on [-u, u] with u = c1 sqrt(E w^2) - c2 E|w|.
//
// Deviations: activations with negative values are clipped to [-alpha, alpha], where those below -alpha have
// dy/dalpha = -1; alpha starts from the data (setting `init`). SAWB has coefficients for 2, 3, 4, 5 and 8
// bits; those for 6 and 7 are interpolated, and with 1 bit u = E|w|.
#include <algorithm>
#include <cmath>

#include "../../autograd/ops.h"
#include "../../kernels/elementwise.h"
#include "ranges.h"
#include "rounded.h"
#include "straight_through.h"

namespace stairgrad::quant {
namespace {

// alpha to the scale of its grid.
double steps_of(int bits, bool is_signed) { return (is_signed ? 2.0 : 1.0) / ((1 << bits) - 1); }

struct PactOp final : QuantizeOp {
  double step;   // of the grid, for alpha = 1
  double scale;  // of the gradient of alpha
  bool both;     // clipped at -alpha, too

  PactOp(Grids grids, double step, double scale, bool both)
      : QuantizeOp(std::move(grids)), step(step), scale(scale), both(both) {}
  std::string_view name() const override { return "pact"; }
  Tensors vjp(const Vjp& v) const override {
    const RoundedGradients g = rounded_backward(v.grad(), v.input(0), v.input(1) * step, grids[0]);
    return {g.x, (both ? g.above - g.below : g.above) * scale};
  }
  Saved saved() const override { return {.inputs = {0, 1}}; }
};

class Pact final : public Quantizer {
 public:
  explicit Pact(const QuantizerOptions& options)
      : Quantizer(options), min_alpha_(add_buffer("min_alpha", {1})) {
    declare("alpha");
  }

  QuantizerTraits traits() const override { return {.decay = true}; }

  Grids grids(const Arrays& parameters) const override {
    const double alpha = std::max(parameters[0].item(), smallest_range);
    return {symmetric() ? symmetric_grid(alpha, options().bits)
                        : zero_grid(is_signed() ? -alpha : 0, alpha, options().bits)};
  }

  Tensor apply(const Tensors& in) const override {
    return quantize(PactOp(grids({in[1].value()}), step(),
                           gradient_scale(in[0].shape(), intervals(options().bits, false)), is_signed()),
                    in);
  }

  Tensor surrogate(const Tensors& in, const Arrays& at) const override {
    const Grids on = grids({at[1]});
    const RoundedPoint p = rounded_at(at[0], kernels::affine(at[1], step(), 0), on[0]);
    const Tensor side = is_signed() ? 2 * p.above - 1 : p.above;
    const Tensor moved = where(p.inside, in[0] - at[0], side * (in[1] - at[1]));
    return fake_quantize(at[0], on) + moved;
  }

  std::optional<RoundingRule> rounding_rule(const Shape& x) const override {
    return RoundingRule{to_grid()[0], 0, is_signed() ? -1.0 : 0.0, 1,
                        gradient_scale(x, intervals(options().bits, false))};
  }

  void project() override { set_values(0, raised(values(0), min_alpha_)); }

 private:
  double step() const { return steps_of(options().bits, is_signed()); }

  void choose(const Array& x) override {
    const ValueRange r =
        initial_ranges(options().settings.choice("init"), x, 1, options().bits, symmetric())[0];
    const double alpha = std::max({r.high, -r.low, smallest_range});
    set_values(0, {alpha});
    min_alpha_.assign(cast(Array::of(floors({alpha}, smallest_range)), min_alpha_.dtype()));
  }

  Array& min_alpha_;
};

class Sawb final : public Quantizer {
 public:
  Sawb(const QuantizerOptions& options, int64_t channels)
      : Quantizer(options, channels), u_(add_buffer("u", {groups()})) {}

  QuantizerTraits traits() const override { return {.learned = false, .follows = true}; }

  Grids grids(const Arrays&) const override {
    Grids all;
    for (const double u : u_.to_vector()) all.push_back(symmetric_grid(u, options().bits));
    return all;
  }
  Tensor apply(const Tensors& in) const override {
    const Grids on = grids({});
    return quantize(StraightThroughOp(on, everything(on.size())), in);
  }
  Tensor surrogate(const Tensors& in, const Arrays& at) const override {
    const Grids on = grids({});
    return straight_through_surrogate(in[0], at[0], on, everything(on.size()));
  }

 private:
  void choose(const Array& x) override {
    constexpr double c1[] = {0, 3.12, 7.509, 12.68, 17.74, 22.413, 27.087, 31.76};
    constexpr double c2[] = {-1, 2.064, 6.892, 12.80, 18.64, 24.107, 29.573, 35.04};
    const auto b = static_cast<size_t>(options().bits - 1);
    std::vector<double> u;
    for (const Statistics& s : statistics(x, groups())) {
      const double rms = std::sqrt(s.deviation * s.deviation + s.mean * s.mean);
      // Far from the distributions that the coefficients were fitted to, it can come out negative.
      u.push_back(std::max(c1[b] * rms - c2[b] * s.mean_abs, s.mean_abs));
    }
    u_.assign(cast(Array::of(u), u_.dtype()));
  }
  void observe(const Array& x) override { choose(x); }

  Array& u_;
};

}  // namespace

QuantizerEntry pact_entry() {
  return {[](const QuantizerOptions& options, int64_t channels) -> std::shared_ptr<Quantizer> {
            if (!options.weight) return std::make_shared<Pact>(options);
            if (options.settings.choice("weights") == "sawb")
              return std::make_shared<Sawb>(options, channels);
            return make_quantizer("dorefa", options, channels);
          },
          {SettingRule::choice("weights", {"dorefa", "sawb"}), init_rule(), gradient_scale_rule("none")},
          "Choi et al., 2018; learns where activations are clipped"};
}

}  // namespace stairgrad::quant
