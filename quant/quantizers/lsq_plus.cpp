// LSQ+ (Bhalgat et al., CVPRW'20): LSQ with a learned offset for activations, and other starts.
//
//   y = code * s + beta,  code = clamp(round((x - beta) / s), 0, 2^b - 1)
//   dy/ds = code - (x - beta) / s inside, 0 or 2^b - 1 at the ends;  dy/dbeta = 0 inside, 1 at the ends
//
// Deviations: zero is moved onto a level (zero point round(-beta / s)), with the gradient passed straight
// through, because the integer runtime pads with zeros; activations that are never negative keep beta = 0;
// the start of s and beta minimises the squared error over factors of the extremes instead of over both;
// codes of weights as in lsq.cpp.
#include <algorithm>
#include <cmath>

#include "../../autograd/ops.h"
#include "lsq.h"
#include "ranges.h"
#include "rounded.h"

namespace stairgrad::quant {
namespace {

// Inputs x, s and, of activations, beta.
struct LsqPlusOp final : QuantizeOp {
  double scale;  // of the gradients of s and beta
  bool offset;   // beta is learned

  LsqPlusOp(Grids grids, double scale, bool offset)
      : QuantizeOp(std::move(grids)), scale(scale), offset(offset) {}
  std::string_view name() const override { return "lsq_plus"; }
  Tensors vjp(const Vjp& v) const override {
    const Grid& g = grids[0];
    const RoundedGradients sums = rounded_backward(v.grad(), v.input(0), v.input(1), g);
    const double zero = offset ? 0 : g.zero_point;
    Tensors result = {sums.x,
                      (sums.rounding + sums.below * (g.lo - zero) + sums.above * (g.hi - zero)) * scale};
    if (v.inputs() > 2) result.push_back((sums.below + sums.above) * (offset ? scale : 0));
    return result;
  }
  Saved saved() const override { return {.inputs = {0, 1}}; }
};

class LsqPlus final : public Quantizer {
 public:
  LsqPlus(const QuantizerOptions& options, int64_t channels)
      : Quantizer(options, channels), min_scale_(add_buffer("min_scale", {groups()})) {
    declare("scale");
    if (!options.weight) declare("offset");
  }

  Grids grids(const Arrays& parameters) const override {
    Grids all;
    const std::vector<double> scale = parameters[0].to_vector();
    for (size_t g = 0; g < scale.size(); ++g) {
      all.push_back(lsq_codes(options().bits, options().weight, symmetric()));
      const double s = std::max(scale[g], smallest_range / 255);
      all[g].scale = static_cast<float>(s);
      if (has_offset())
        all[g].zero_point = static_cast<float>(
            std::clamp(std::nearbyint(-parameters[1].to_vector()[g] / s), 0.0, 1.0 * all[g].hi));
    }
    return all;
  }

  Tensor apply(const Tensors& in) const override {
    Arrays parameters;
    for (size_t i = 1; i < in.size(); ++i) parameters.push_back(in[i].value());
    const Grids on = grids(parameters);
    return quantize(LsqPlusOp(on, gradient_scale(in[0].shape(), lsq_positive(on[0])), has_offset()), in);
  }

  Tensor surrogate(const Tensors& in, const Arrays& at) const override {
    const Tensor step = spread(in[1], in[0].rank());
    const Grid codes = grids(Arrays(at.begin() + 1, at.end()))[0];
    const RoundedPoint p = rounded_at(at[0], at[1], codes);
    Tensor end = step * (p.code - codes.zero_point);
    if (has_offset())  // beta at the sample point is where the zero point puts it
      end = step * p.code + in[2] + (-codes.zero_point * at[1].item() - at[2].item());
    else if (in.size() > 2)
      end = end + 0.0 * in[2];
    return where(p.inside, in[0] + step * (p.code - p.position), end);
  }

  void project() override {
    set_values(0, raised(values(0), min_scale_));
    if (!options().weight) set_values(1, {has_offset() ? std::min(values(1)[0], 0.0) : 0.0});
  }

 private:
  bool has_offset() const { return !options().weight && is_signed() && !symmetric(); }

  // Weights: max |mean +- 3 deviations| / 2^(b-1) (eq. 8); activations: the least squared error (eq. 9).
  void choose(const Array& x) override {
    const int n = (1 << options().bits) - 1;
    std::vector<double> scale;
    if (options().weight) {
      for (const Statistics& s : statistics(x, groups()))
        scale.push_back((std::abs(s.mean) + 3 * s.deviation) / (1 << (options().bits - 1)));
    } else {
      const auto observer =
          make_observer("mse", {.bits = options().bits, .symmetric = symmetric(), .power = 2});
      observer->observe(x);
      const ValueRange r = observer->ranges()[0];
      scale.push_back((r.high - r.low) / n);
      set_values(1, {has_offset() ? r.low : 0});
    }
    for (double& s : scale) s = std::max(s, smallest_range / 255);
    set_values(0, scale);
    min_scale_.assign(cast(Array::of(floors(scale, smallest_range / 255)), min_scale_.dtype()));
  }

  Array& min_scale_;
};

}  // namespace

QuantizerEntry lsq_plus_entry() {
  return {[](const QuantizerOptions& options, int64_t channels) {
            return std::make_shared<LsqPlus>(options, channels);
          },
          {gradient_scale_rule()},
          "Bhalgat et al., CVPRW'20; learns the step, and the offset of activations"};
}

}  // namespace stairgrad::quant
