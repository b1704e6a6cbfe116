// Additive powers of two (Li et al., ICLR'20): levels are sums of powers of two, denser near zero, in a
// learned range [-alpha, alpha] of weights or [0, alpha] of activations. With n = floor(b / 2) terms of four
// values each and, if b is odd, one more of two values, a magnitude of b bits is (eq. 4 and 5, scaled so that
// the largest is 1)
//
//   sum_i p_i,  p_i in {0, 2^-i, 2^-(i+n), 2^-(i+2n)}
//
// The levels are not equally spaced: they have no integer grid, and lowering refuses them. The gradient is
// that of the clipping reparameterised by alpha (RCF, eq. 8): dy/dalpha = (y - x) / alpha inside, +-1
// outside.
//
// Weights have a sign and b - 1 bits; with 1 bit they are -alpha, alpha. They are standardised first (3.2),
// with mean and deviation as constants. Deviations: activations with negative values have a sign bit, too;
// alpha starts from the data.
#include <algorithm>
#include <cmath>

#include "../../autograd/ops.h"
#include "../quantizer.h"
#include "backward.h"
#include "ranges.h"

namespace stairgrad::quant {
namespace {

// Ascending, from 0 to 1.
std::vector<double> magnitudes(int bits) {
  const int n = bits / 2;
  const bool odd = bits % 2 == 1;
  std::vector<double> levels = {0};
  const auto add = [&](const std::vector<int>& exponents) {
    std::vector<double> sums;
    for (const double level : levels) {
      sums.push_back(level);
      for (const int e : exponents) sums.push_back(level + std::exp2(-e));
    }
    levels = sums;
  };
  // The single bit takes its power between the second and the third of the others.
  for (int i = 0; i < n; ++i) add({i, i + n, i + 2 * n + (odd ? 1 : 0)});
  if (odd) add({2 * n});
  std::sort(levels.begin(), levels.end());
  const double largest = levels.back();
  for (double& level : levels) level /= largest;
  return levels;
}

// Of a position on the levels for alpha = 1: the nearest one, and 1 inside the range, else 0.
struct ApotPoint {
  Tensor level, inside;
};

ApotPoint apot_at(const Array& p, const std::vector<double>& levels) {
  const Tensor low = Array::full(p.shape(), levels.front(), p.dtype()),
               high = Array::full(p.shape(), levels.back(), p.dtype());
  return {on_levels(p, Array::full({1}, 1, p.dtype()), levels), greater(p, low) * greater(high, p)};
}

// Inputs u, x, alpha: the gradients for x and alpha.
struct ApotBackward final : Op {
  std::vector<double> levels;

  explicit ApotBackward(std::vector<double> levels) : levels(std::move(levels)) {}
  std::string_view name() const override { return "apot_backward"; }
  Arrays forward(const Arrays& in) const override {
    const LevelGradients g = levels_backward(in[0], in[1], in[2], levels);
    return {g.x, g.alpha};
  }
  Tensors decompose(const Tensors& in) const override {
    const Tensor u = cast(in[0], in[2].dtype()), p = cast(in[1], in[2].dtype()) / spread(in[2], in[1].rank());
    const ApotPoint at = apot_at(p.value(), levels);
    const Tensor moved = where(at.inside, at.level - p, at.level);  // NaN lies outside
    const Tensor terms = sum_to(u * moved, spread(in[2], in[1].rank()).shape());
    return {cast(u * at.inside, in[1].dtype()), reshape(terms, in[2].shape())};
  }
  Tensors vjp(const Vjp& v) const override { return vjp_by_decomposition(*this, v); }
  Saved saved() const override { return {.inputs = {0, 1, 2}}; }
  bool mixed_types() const override { return true; }
};

struct ApotOp final : QuantizeOp {
  std::vector<double> levels;
  int code_bits;
  double scale;  // of the gradient of alpha

  ApotOp(std::vector<double> levels, int bits, double scale)
      : QuantizeOp({}), levels(std::move(levels)), code_bits(bits), scale(scale) {}
  std::string_view name() const override { return "apot"; }
  int bits() const override { return code_bits; }
  Arrays forward(const Arrays& in) const override { return {on_levels(in[0], in[1], levels)}; }
  Tensors vjp(const Vjp& v) const override {
    const Tensors g =
        stairgrad::apply(std::make_shared<const ApotBackward>(levels), {v.grad(), v.input(0), v.input(1)});
    return {g[0], g[1] * scale};
  }
  Saved saved() const override { return {.inputs = {0, 1}}; }
};

class Apot final : public Quantizer {
 public:
  Apot(const QuantizerOptions& options, int64_t channels)
      : Quantizer(options, channels), min_alpha_(add_buffer("min_alpha", {groups()})) {
    declare("alpha");
  }

  QuantizerTraits traits() const override {
    const bool weight = options().weight;
    return {.uniform = false, .deployable = false, .follows = weight, .scales = !weight};
  }

  Grids grids(const Arrays&) const override { return {}; }

  Tensor transform(const Tensor& x) const override {
    if (!options().weight) return x;
    const Tensor slices = reshape(x, {groups(), x.size() / groups()}).detach();
    const int64_t correction = slices.dim(1) > 1 ? 1 : 0;
    const Tensor deviation = sqrt(var(slices, {1}, true, correction) + smallest_range * smallest_range);
    return reshape((reshape(x, slices.shape()) - mean(slices, {1}, true)) / deviation, x.shape());
  }

  Tensor apply(const Tensors& in) const override {
    const int levels_above_zero = (1 << (options().bits - (is_signed() && options().bits > 1 ? 1 : 0))) - 1;
    return apply_op(ApotOp(levels(), options().bits, gradient_scale(in[0].shape(), levels_above_zero)), in);
  }
  Tensor surrogate(const Tensors& in, const Arrays& at) const override {
    const Tensor alpha = spread(in[1], in[0].rank()), p = Tensor(at[0]) / spread(Tensor(at[1]), in[0].rank());
    const ApotPoint q = apot_at(p.value(), levels());
    return where(q.inside, in[0] + alpha * (q.level - p), alpha * q.level);
  }

  void project() override { set_values(0, raised(values(0), min_alpha_)); }

 private:
  std::vector<double> levels() const {
    const std::vector<double> positive = magnitudes(options().bits - (is_signed() ? 1 : 0));
    if (!is_signed()) return positive;
    if (options().bits == 1) return {-1, 1};
    std::vector<double> both;
    for (size_t i = positive.size() - 1; i > 0; --i) both.push_back(-positive[i]);
    both.insert(both.end(), positive.begin(), positive.end());
    return both;
  }

  void choose(const Array& x) override {
    const Array data = transform(x).value();
    std::vector<double> alpha;
    for (const ValueRange& r :
         initial_ranges(options().settings.choice("init"), data, groups(), options().bits, is_signed()))
      alpha.push_back(std::max(r.high, smallest_range));
    set_values(0, alpha);
    min_alpha_.assign(cast(Array::of(floors(alpha, smallest_range)), min_alpha_.dtype()));
  }

  Array& min_alpha_;
};

}  // namespace

QuantizerEntry apot_entry() {
  return {[](const QuantizerOptions& options, int64_t channels) {
            return std::make_shared<Apot>(options, channels);
          },
          {init_rule(), gradient_scale_rule("none")},
          "Li et al., ICLR'20; levels are sums of powers of two; learns the range; cannot be lowered"};
}

}  // namespace stairgrad::quant
