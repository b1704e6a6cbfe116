// Deviations: 8-bit weights lie on -127 .. 127, which the integer runtime multiplies; 1 bit, of which the
// papers have none, is -s/2, s/2 unless activations are never negative; whether values have two signs is
// asked of each grid, not once of the tensor.
#include "affine.h"

#include <algorithm>
#include <cmath>

#include "../../autograd/ops.h"
#include "../../kernels/threads.h"
#include "../ptq/border.h"
#include "ranges.h"
#include "rounded.h"
#include "straight_through.h"

namespace stairgrad::quant {

Affine::Affine(const QuantizerOptions& options, int64_t channels)
    : Quantizer(options, channels),
      zero_point_(add_buffer("zero_point", {groups()})),
      weight_scale_(options.weight ? &add_buffer("scale", {groups()}) : nullptr),
      border_(nullptr) {
  if (options.weight) return;
  declare("scale");
  if (options.settings.has("border") && options.settings.choice("border") == "yes")
    border_ = &add_parameter("border", {(int64_t{1} << options.bits) - 1});
}

bool Affine::even() const {
  return options().weight ? options().bits == 1 || options().bits == 8 : options().bits == 1 && is_signed();
}

Grid Affine::codes(double zero_point) const {
  if (options().weight && options().bits == 8) return {1, 0, -127, 127};
  return {1, static_cast<float>(zero_point), 0, (1 << options().bits) - 1};
}

Grids Affine::grids(const Arrays& parameters) const { return border_ ? Grids{} : levels(parameters); }

Grids Affine::levels() const {
  Arrays parameters;
  for (const Tensor& parameter : own_parameters()) parameters.push_back(parameter.value());
  return levels(parameters);
}

Grids Affine::levels(const Arrays& parameters) const {
  const std::vector<double> scale = (weight_scale_ ? *weight_scale_ : parameters[0]).to_vector(),
                            zero_point = zero_point_.to_vector();
  Grids all;
  for (size_t g = 0; g < scale.size(); ++g) {
    all.push_back(codes(zero_point[g]));
    all.back().scale = static_cast<float>(std::max(scale[g], smallest_range / 255));
  }
  return all;
}

Tensor Affine::apply(const Tensors& in) const {
  if (options().weight) {
    const Grids on = grids({});
    return quantize(StraightThroughOp(on, rounded_range(on)), in);
  }
  const Grids on = levels({in[1].value()});
  if (border_) return quantize_with_border(in[0], in[1], *border_, on[0]);
  const double scale = gradient_scale(in[0].shape(), on[0].hi);
  return quantize(LearnedStepOp("affine", on, scale), in);
}

Tensor Affine::surrogate(const Tensors& in, const Arrays& at) const {
  const Grids on = levels(Arrays(at.begin() + 1, at.end()));
  if (options().weight) return straight_through_surrogate(in[0], at[0], on, rounded_range(on));
  const Grid g = codes(on[0].zero_point);
  const RoundedPoint p = rounded_at(at[0], at[1], g);
  return where(p.inside, in[0] + in[1] * (p.code - p.position), in[1] * (p.code - g.zero_point));
}

void Affine::project() {
  if (options().weight) return;
  if (border_) Array(border_->value()).assign(clamp(border_->detach(), 0.02, 0.98).value());
  std::vector<double> scale = values(0);
  for (double& s : scale) s = std::max(std::abs(s), smallest_range / 255);
  set_values(0, scale);
}

void Affine::set_levels(const Grids& grids) {
  const Grids own = levels();
  check(grids.size() == own.size(), "[affine] got ", grids.size(), " grids, expected ", own.size());
  std::vector<double> scale, zero_point;
  for (size_t g = 0; g < grids.size(); ++g) {
    check(grids[g].lo == own[g].lo && grids[g].hi == own[g].hi, "[affine] got the codes ", grids[g].lo,
          " .. ", grids[g].hi, ", expected ", own[g].lo, " .. ", own[g].hi);
    scale.push_back(grids[g].scale);
    zero_point.push_back(grids[g].zero_point);
  }
  if (weight_scale_)
    weight_scale_->assign(cast(Array::of(scale), weight_scale_->dtype()));
  else
    set_values(0, scale);
  zero_point_.assign(cast(Array::of(zero_point), zero_point_.dtype()));
}

void Affine::choose(const Array& x) {
  const std::string range = options().settings.choice("range");
  const int bits = options().bits;
  Grids chosen(static_cast<size_t>(groups()));
  if (range == "mse") {
    const Array values = cast(x, DType::f32);
    const int64_t size = values.size() / groups();
    parallel_for(groups(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t g = begin; g < end; ++g)
        chosen[static_cast<size_t>(g)] =
            least_error_grid(weighted_values(values.data<float>() + g * size, size), bits, even(),
                             options().settings.number("power"));
    });
  } else {
    const auto observer = make_observer(range, {.bits = bits,
                                                .symmetric = even(),
                                                .groups = groups(),
                                                .percentile = options().settings.number("percentile"),
                                                .sigmas = options().settings.number("sigmas")});
    observer->observe(x);
    const Ranges ranges = observer->ranges();
    for (size_t g = 0; g < chosen.size(); ++g)
      chosen[g] = even() ? symmetric_grid(ranges[g].high, bits)
                         : zero_grid(std::min(ranges[g].low, 0.0), std::max(ranges[g].high, 0.0), bits);
  }
  set_levels(chosen);
  if (border_) Array(border_->value()).assign(Array::full(border_->shape(), 0.5, border_->dtype()));
}

std::vector<WeightedValue> weighted_values(const float* x, int64_t n) {
  std::vector<WeightedValue> all;
  if (n <= 65536) {
    for (int64_t i = 0; i < n; ++i) all.push_back({x[i], 1});
    return all;
  }
  const auto [low, high] = std::minmax_element(x, x + n);
  const double width =
      std::max(static_cast<double>(*high) - static_cast<double>(*low), smallest_range) / 8192;
  const auto first = static_cast<int64_t>(std::llrint(*low / width));
  std::vector<float> counts(8194);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t bin = std::llrint(x[i] / width) - first;
    counts[static_cast<size_t>(std::clamp<int64_t>(bin, 0, 8193))] += 1;
  }
  for (size_t bin = 0; bin < counts.size(); ++bin)
    if (counts[bin] > 0)
      all.push_back(
          {static_cast<float>((static_cast<double>(bin) + static_cast<double>(first)) * width), counts[bin]});
  return all;
}

double quantization_error(const std::vector<WeightedValue>& x, const Grid& g, double power, double limit) {
  const float inverse = grid::inverse(g.scale), exponent = static_cast<float>(power / 2);
  double sum = 0;
  for (size_t i = 0; i < x.size() && sum < limit; ++i) {
    const float d = x[i].value - grid::decode(grid::encode(x[i].value, g, inverse), g);
    sum += static_cast<double>(x[i].count * std::pow(d * d, exponent));
  }
  return sum;
}

Grid least_error_grid(const std::vector<WeightedValue>& x, int bits, bool even, double power) {
  double low = 0, high = 0;
  for (const WeightedValue& v : x) {
    low = std::min(low, static_cast<double>(v.value));
    high = std::max(high, static_cast<double>(v.value));
  }
  const int last = (1 << bits) - 1;
  Grid best = even ? symmetric_grid(std::max(high, -low), bits) : zero_grid(low, high, bits);
  double least = quantization_error(x, best, power);
  const auto offer = [&](const Grid& g) {
    const double error = quantization_error(x, g, power, least);
    if (error < least) {
      least = error;
      best = g;
    }
  };
  const int near = last + 1 > 16 ? static_cast<int>(best.zero_point) - 8 : 0;
  for (int i = 100; i >= 1; --i) {  // from the widest: good candidates early let bad ones stop early
    const double share = i / 100.0;
    if (even) {
      offer(symmetric_grid(share * std::max(high, -low), bits));
    } else if (low >= 0 || high <= 0) {
      offer(zero_grid(share * low, share * high, bits));
    } else {
      Grid g = zero_grid(0, share * (high - low), bits);
      for (int z = std::max(0, near); z <= std::min(last, near + 15); ++z) {
        g.zero_point = static_cast<float>(z);
        offer(g);
      }
    }
  }
  return best;
}

QuantizerEntry affine_entry() {
  std::vector<std::string> ranges = observer_names();
  std::stable_partition(ranges.begin(), ranges.end(), [](const std::string& name) { return name == "mse"; });
  return {[](const QuantizerOptions& options, int64_t channels) {
            return std::make_shared<Affine>(options, channels);
          },
          {SettingRule::choice("range", ranges), SettingRule::number("power", 2.4, 1, 8),
           SettingRule::number("percentile", 99.99, 50, 100), SettingRule::number("sigmas", 3, 0.1, 100),
           gradient_scale_rule("none"), SettingRule::choice("border", {"no", "yes"})},
          "asymmetric, of post-training methods; activations learn the step"};
}

}  // namespace stairgrad::quant
