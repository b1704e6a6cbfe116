// Learned step size quantization (Esser et al., ICLR'20): one learned scale for each grid.
//
// The step starts at the paper's 2 <|x|> / sqrt(Q_P), or where the setting "init" of other quantizers puts
// the range: with few bits the paper's start clips much of sparse activations.
//
// Deviations: 8-bit weights use -127 .. 127; with 1 bit, of which the paper has none, weights and signed
// activations are -s/2, s/2; other activations that can be negative are codes 0 .. 2^b - 1 with the zero
// point 2^(b-1), which are the paper's levels.
#include "lsq.h"

#include <algorithm>
#include <cmath>

#include "../../autograd/ops.h"
#include "ranges.h"
#include "rounded.h"

namespace stairgrad::quant {
namespace {

class Lsq final : public Quantizer {
 public:
  Lsq(const QuantizerOptions& options, int64_t channels)
      : Quantizer(options, channels), min_scale_(add_buffer("min_scale", {groups()})) {
    declare("scale");
  }

  Grids grids(const Arrays& parameters) const override {
    Grids all;
    for (const double scale : parameters[0].to_vector()) {
      all.push_back(codes());
      all.back().scale = static_cast<float>(std::max(scale, smallest_range / 255));
    }
    return all;
  }

  Tensor apply(const Tensors& in) const override {
    const double scale = gradient_scale(in[0].shape(), lsq_positive(codes()));
    return quantize(LearnedStepOp("lsq", grids({in[1].value()}), scale), in);
  }

  Tensor surrogate(const Tensors& in, const Arrays& at) const override {
    const Tensor step = spread(in[1], in[0].rank());
    const RoundedPoint p = rounded_at(at[0], at[1], codes());
    return where(p.inside, in[0] + step * (p.code - p.position), step * (p.code - codes().zero_point));
  }

  std::optional<RoundingRule> rounding_rule(const Shape& x) const override {
    if (groups() > 1) return {};
    const Grid g = to_grid()[0];
    return RoundingRule{g, 1, g.lo - g.zero_point, g.hi - g.zero_point,
                        gradient_scale(x, lsq_positive(codes()))};
  }

  void project() override { set_values(0, raised(values(0), min_scale_)); }

 private:
  Grid codes() const {
    Grid g = lsq_codes(options().bits, options().weight, symmetric());
    if (!symmetric() && is_signed()) g.zero_point = static_cast<float>(1 << (options().bits - 1));
    return g;
  }

  std::vector<double> first_steps(const Array& x) const {
    const std::string& init = options().settings.choice("init");
    std::vector<double> steps;
    if (init == "mean")  // 2 <|x|> / sqrt(Q_P) (2.1)
      for (const Statistics& s : statistics(x, groups()))
        steps.push_back(2 * s.mean_abs / std::sqrt(lsq_positive(codes())));
    else
      for (const ValueRange& r : initial_ranges(init, x, groups(), options().bits, symmetric()))
        steps.push_back((r.high - r.low) / intervals(options().bits, options().weight));
    return steps;
  }

  void choose(const Array& x) override {
    std::vector<double> scale = first_steps(x);
    for (double& s : scale) s = std::max(s, smallest_range / 255);
    set_values(0, scale);
    min_scale_.assign(cast(Array::of(floors(scale, smallest_range / 255)), min_scale_.dtype()));
  }

  Array& min_scale_;
};

}  // namespace

Grid lsq_codes(int bits, bool weight, bool symmetric) {
  const int half = 1 << (bits - 1);
  if (symmetric && bits == 1) return {1, 0.5f, 0, 1};
  if (weight) return {1, 0, bits == 8 ? -127 : -half, half - 1};
  return {1, 0, 0, 2 * half - 1};
}

int lsq_positive(const Grid& codes) { return std::max(1, codes.hi - static_cast<int>(codes.zero_point)); }

QuantizerEntry lsq_entry() {
  return {[](const QuantizerOptions& options, int64_t channels) {
            return std::make_shared<Lsq>(options, channels);
          },
          {SettingRule::choice("init", {"mean", "deviations", "extremes", "mse"}), gradient_scale_rule()},
          "Esser et al., ICLR'20; learns the step"};
}

}  // namespace stairgrad::quant
