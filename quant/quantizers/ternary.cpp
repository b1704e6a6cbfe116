// Ternary weight networks (Li and Liu, 2016): 2-bit weights are -a, 0 or a, where |w| > 0.7 E|w| decides who
// is not 0 and a is the mean of those |w| (eq. 5 and 6). Gradients pass straight through. Other numbers of
// bits, and activations, are `ste`.
//
// The threshold of the grid {-a, 0, a} is a / 2, so weights are put on it times a / (2 * 0.7 E|w|), a factor
// that gradients do not see.
#include <algorithm>
#include <cfloat>
#include <cmath>

#include "../../autograd/ops.h"
#include "ranges.h"
#include "straight_through.h"

namespace stairgrad::quant {
namespace {

class Ternary final : public Quantizer {
 public:
  Ternary(const QuantizerOptions& options, int64_t channels)
      : Quantizer(options, channels),
        level_(add_buffer("level", {groups()})),
        threshold_(add_buffer("threshold", {groups()})) {}

  QuantizerTraits traits() const override { return {.learned = false, .follows = true}; }

  Grids grids(const Arrays&) const override {
    Grids all;
    for (const double level : level_.to_vector()) all.push_back({static_cast<float>(level), 0, -1, 1});
    return all;
  }

  Tensor transform(const Tensor& x) const override {
    const Tensor factor = spread(Tensor(level_) / (2 * Tensor(threshold_)), x.rank());
    const Tensor w = clamp(x, -FLT_MAX, FLT_MAX);  // the difference of infinities is no number
    return w - stop_grad(w) + stop_grad(w * factor);
  }

  Tensor apply(const Tensors& in) const override {
    return quantize(StraightThroughOp(grids({}), everything(static_cast<size_t>(groups()))), in);
  }
  Tensor surrogate(const Tensors& in, const Arrays& at) const override {
    return straight_through_surrogate(in[0], at[0], grids({}), everything(static_cast<size_t>(groups())));
  }

 private:
  void choose(const Array& x) override {
    const std::vector<double> w = x.to_vector();
    const size_t size = w.size() / static_cast<size_t>(groups());
    std::vector<double> level, threshold;
    for (const Statistics& s : statistics(x, groups())) {
      threshold.push_back(std::max(0.7 * s.mean_abs, smallest_range / 2));
      double sum = 0, count = 0;
      for (size_t i = level.size() * size; i < threshold.size() * size; ++i)
        if (std::isfinite(w[i]) && std::abs(w[i]) > threshold.back()) {
          sum += std::abs(w[i]);
          ++count;
        }
      level.push_back(count > 0 ? sum / count : smallest_range);
    }
    level_.assign(cast(Array::of(level), level_.dtype()));
    threshold_.assign(cast(Array::of(threshold), threshold_.dtype()));
  }
  void observe(const Array& x) override { choose(x); }

  Array &level_, &threshold_;
};

}  // namespace

QuantizerEntry ternary_entry() {
  return {[](const QuantizerOptions& options, int64_t channels) -> std::shared_ptr<Quantizer> {
            if (options.weight && options.bits == 2) return std::make_shared<Ternary>(options, channels);
            return make_quantizer("ste", options, channels);
          },
          {},
          "Li and Liu, 2016: 2-bit weights -a, 0, a; otherwise ste"};
}

}  // namespace stairgrad::quant
