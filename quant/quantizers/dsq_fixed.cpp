// DSQ with nothing learned, as MQBench has it (Li et al., NeurIPS'21 datasets): alpha constant, ranges
// watched; inside the range gradients have DSQ's slope, outside none.
//
// Deviations: ranges end at the extremes of the data, so that 8-bit weights are not spread over values that
// there are none of; weights are symmetric; zero is moved onto a level of activations by at most half a step.
#include "../../autograd/ops.h"
#include "dsq_curve.h"
#include "observed.h"

namespace stairgrad::quant {
namespace {

class DsqFixed final : public Observed {
 public:
  DsqFixed(const QuantizerOptions& options, int64_t channels)
      : Observed(options, channels), alpha_(options.settings.number("alpha")) {}

  Tensor apply(const Tensors& in) const override {
    return quantize(DsqOp(grids({}), false, 1), with_range(in[0]));
  }
  Tensor surrogate(const Tensors& in, const Arrays& at) const override {
    const Grid g = grids({})[0];
    return dsq_surrogate(with_range(in[0]), with_range(at[0]), g.hi - g.lo, false);
  }

 private:
  Tensors with_range(const Tensor& x) const {
    std::vector<double> l, u;
    for (const Grid& g : grids({})) {
      l.push_back((static_cast<double>(g.lo) - g.zero_point) * g.scale);
      u.push_back((static_cast<double>(g.hi) - g.zero_point) * g.scale);
    }
    const DType type = x.dtype() == DType::f64 ? DType::f64 : DType::f32;
    const Shape shape{groups()};
    return {x, Array::full(shape, alpha_, type), cast(Array::of(l), type), cast(Array::of(u), type)};
  }

  double alpha_;
};

}  // namespace

QuantizerEntry dsq_fixed_entry() {
  std::vector<SettingRule> settings = range_rules("mqbench", 2.6);
  settings.insert(settings.begin(), SettingRule::number("alpha", 0.4, 1e-3, 0.999));
  return {[](const QuantizerOptions& options, int64_t channels) {
            return std::make_shared<DsqFixed>(options, channels);
          },
          settings, "DSQ's slope with alpha constant and ranges of the data, as in MQBench"};
}

}  // namespace stairgrad::quant
