// One bit: sign(x), with a choice of gradients, levels and weight transforms. Other numbers of bits, which
// skips and the ends of a network may have, are `dsq_fixed`.
//
//   slope=dsq       DSQ's with one interval on [-c, c], alpha constant: c = 1 for activations, three
//                   deviations for weights (Gong et al., ICCV'19)
//   slope=hardtanh  1 where |x| <= 1 (Courbariaux et al., 2016)
//   slope=tanh      k t (1 - tanh^2(t x)), t from 0.1 to 10 over the training, k = max(1 / t, 1) (Qin et al.,
//                   IR-Net, CVPR'20, eq. 14)
//   levels=mean     weights are +-E|w| (Rastegari et al., XNOR-Net, ECCV'16), of the layer or of each output
//                   channel, as the site's granularity has it; activations are +-1
//   levels=shift    weights are +-2^round(log2 E|w|) (IR-Net, eq. 9);   levels=one: +-1
//   standardise     weights of each output channel first get mean 0 and deviation 1 (IR-Net, eq. 7)
//
// IR-Net is binary:slope=tanh,levels=shift,standardise=yes with one grid for each channel.
//
// Deviations: the level is a constant in the backward and no factor of the slope (XNOR-Net and IR-Net
// multiply the gradient by it), so that gradients have the same size for all levels; sign(0) = -1, as grid.h
// rounds half to even; activations that are never negative are 0 or 1 with the threshold 1/2, and c is there
// half as wide.
#include <algorithm>
#include <cmath>

#include "../../autograd/ops.h"
#include "backward.h"
#include "dsq_curve.h"
#include "ranges.h"
#include "straight_through.h"

namespace stairgrad::quant {
namespace {

// IR-Net's curve k tanh(t (x - middle)) with k = max(1 / t, 1).
struct TanhCurve {
  double t, middle;

  double k() const { return std::max(1 / t, 1.0); }
  Tensor bent(const Tensor& x) const {  // NaN counts as 0
    return tanh(t * (where(equal(x, x), x, Array::zeros(x.shape(), x.dtype())) - middle));
  }
};

// Inputs u, x: u times the derivative of the curve.
struct TanhBackward final : Op {
  TanhCurve curve;

  explicit TanhBackward(const TanhCurve& curve) : curve(curve) {}
  std::string_view name() const override { return "tanh_backward"; }
  Arrays forward(const Arrays& in) const override {
    return {tanh_slope(in[0], in[1], curve.k(), curve.t, curve.middle)};
  }
  Tensors decompose(const Tensors& in) const override {
    const DType wide = in[1].dtype() == DType::f64 ? DType::f64 : DType::f32;
    const Tensor slope = curve.k() * curve.t * (1 - square(curve.bent(cast(in[1], wide))));
    return {cast(cast(in[0], wide) * slope, in[1].dtype())};
  }
  Tensors vjp(const Vjp& v) const override { return vjp_by_decomposition(*this, v); }
  Saved saved() const override { return {.inputs = {0, 1}}; }
};

struct TanhOp final : QuantizeOp {
  TanhCurve curve;

  TanhOp(Grids grids, const TanhCurve& curve) : QuantizeOp(std::move(grids)), curve(curve) {}
  std::string_view name() const override { return "binary_tanh"; }
  Tensors vjp(const Vjp& v) const override {
    return {stairgrad::apply(std::make_shared<const TanhBackward>(curve), {v.grad(), v.input(0)})[0]};
  }
  Saved saved() const override { return {.inputs = {0}}; }
};

class Binary final : public Quantizer {
 public:
  Binary(const QuantizerOptions& options, int64_t channels)
      : Quantizer(options, channels),
        slope_(options.settings.choice("slope")),
        levels_(options.settings.choice("levels")),
        alpha_(options.settings.number("alpha")),
        standardised_(options.weight && options.settings.flag("standardise")),
        level_(add_buffer("level", {groups()})),
        reach_(add_buffer("reach", {groups()})) {}

  QuantizerTraits traits() const override {
    return {.learned = false,
            .follows = options().weight,
            .scales = options().weight && levels_ != "one" && !standardised_};
  }

  Grids grids(const Arrays&) const override {
    Grids all;
    for (const double level : level_.to_vector())
      all.push_back(is_signed() ? symmetric_grid(level, 1) : zero_grid(0, level, 1));
    return all;
  }

  Tensor transform(const Tensor& x) const override { return standardised_ ? standardise(x, x.dim(0)) : x; }

  Tensor apply(const Tensors& in) const override {
    if (slope_ == "dsq") return quantize(DsqOp(grids({}), false, 1), curve(in[0]));
    if (slope_ == "hardtanh") return quantize(StraightThroughOp(grids({}), ends()), in);
    return quantize(TanhOp(grids({}), tanh_curve()), in);
  }

  Tensor surrogate(const Tensors& in, const Arrays& at) const override {
    const Tensor &x = in[0], x0 = at[0], y0 = fake_quantize(at[0], grids({}));
    if (slope_ == "hardtanh") return straight_through_surrogate(x, at[0], grids({}), ends());
    if (slope_ == "dsq") {
      const Tensors point = curve(x0);
      return y0 + (dsq_surrogate(curve(x), point, 1, false) - dsq_surrogate(point, point, 1, false));
    }
    const TanhCurve curve = tanh_curve();
    return y0 + curve.k() * (curve.bent(x) - curve.bent(x0));
  }

  void set_progress(double share) override { progress_ = std::clamp(share, 0.0, 1.0); }

 private:
  TanhCurve tanh_curve() const { return {0.1 * std::pow(100, progress_), is_signed() ? 0 : 0.5}; }
  // Where the slope ends.
  Ranges ends() const {
    Ranges ranges;
    for (const double c : reach_.to_vector())
      ranges.push_back(is_signed() ? ValueRange{-c, c} : ValueRange{0, c});
    return ranges;
  }
  Tensors curve(const Tensor& x) const {
    std::vector<double> l, u;
    for (const ValueRange& r : ends()) {
      l.push_back(r.low);
      u.push_back(r.high);
    }
    const DType type = x.dtype() == DType::f64 ? DType::f64 : DType::f32;
    return {x, Array::full({groups()}, alpha_, type), cast(Array::of(l), type), cast(Array::of(u), type)};
  }

  void choose(const Array& x) override {
    std::vector<double> level(static_cast<size_t>(groups()), 1), reach = level;
    if (options().weight) {
      const std::vector<Statistics> all = statistics(transform(x).value(), groups());
      for (size_t g = 0; g < all.size(); ++g) {
        const double mean = std::max(all[g].mean_abs, smallest_range / 2);
        if (levels_ == "mean") level[g] = mean;
        if (levels_ == "shift") level[g] = std::exp2(std::nearbyint(std::log2(mean)));
        if (slope_ == "dsq") reach[g] = std::max(3 * all[g].deviation, smallest_range / 2);
      }
    }
    level_.assign(cast(Array::of(level), level_.dtype()));
    reach_.assign(cast(Array::of(reach), reach_.dtype()));
  }
  void observe(const Array& x) override {
    if (options().weight) choose(x);
  }

  std::string slope_, levels_;
  double alpha_;
  bool standardised_;
  double progress_ = 0;
  Array &level_, &reach_;
};

}  // namespace

QuantizerEntry binary_entry() {
  return {[](const QuantizerOptions& options, int64_t channels) -> std::shared_ptr<Quantizer> {
            if (options.bits == 1) return std::make_shared<Binary>(options, channels);
            return make_quantizer("dsq_fixed", options, channels);
          },
          {SettingRule::choice("slope", {"dsq", "hardtanh", "tanh"}),
           SettingRule::choice("levels", {"mean", "shift", "one"}), SettingRule::flag("standardise", false),
           SettingRule::number("alpha", 0.2, 1e-3, 0.999)},
          "sign(x) with 1 bit: XNOR-Net, IR-Net, and DSQ's slope; otherwise dsq_fixed"};
}

}  // namespace stairgrad::quant
