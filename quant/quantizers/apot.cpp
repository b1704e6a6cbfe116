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
#include "../../kernels/threads.h"
#include "../quantizer.h"
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

// Finds the nearest level: the lower one of two that are equally near, and of NaN the lowest.
struct NearestLevel {
  std::vector<double> levels;
  std::vector<float> thresholds;

  explicit NearestLevel(const std::vector<double>& all) : levels(all) {
    for (size_t i = 1; i < all.size(); ++i)
      thresholds.push_back(static_cast<float>((all[i - 1] + all[i]) / 2));
  }
  double operator()(float p) const {
    if (!(p > thresholds.front())) return levels.front();
    const auto above = std::lower_bound(thresholds.begin(), thresholds.end(), p);
    return levels[static_cast<size_t>(above - thresholds.begin())];
  }
};

// Of x: its level for alpha = 1, and 1 where it lies inside the range, else 0. Of the type of alpha.
struct ApotPoint {
  Tensor level, inside;
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

  Tensor apply(const Tensors& in) const override;
  Tensor surrogate(const Tensors& in, const Arrays& at) const override {
    const Tensor alpha = spread(in[1], in[0].rank()), p = Tensor(at[0]) / spread(Tensor(at[1]), in[0].rank());
    const ApotPoint q = point(at[0], at[1]);
    return where(q.inside, in[0] + alpha * (q.level - p), alpha * q.level);
  }

  void project() override { set_values(0, raised(values(0), min_alpha_)); }

  /// The level of each x for alpha = 1, of the type of alpha, which has one value for each slice of x.
  /// `scaled` multiplies by alpha, in f32 as grids do.
  Array nearest(const Array& x, const Array& alpha, bool scaled) const {
    const Array narrow = cast(x, DType::f32);
    Array y(x.shape(), scaled ? DType::f32 : alpha.dtype());
    const NearestLevel level(levels());
    const std::vector<double> alphas = alpha.to_vector();
    const int64_t size = std::max<int64_t>(1, x.size() / alpha.size());
    const auto fill = [&](auto* to) {
      parallel_for(x.size(), 4096, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const auto a = static_cast<float>(std::max(alphas[static_cast<size_t>(i / size)], smallest_range));
          const double found = level(narrow.data<float>()[i] * grid::inverse(a));
          to[i] = static_cast<std::remove_pointer_t<decltype(to)>>(found) * (scaled ? a : 1);
        }
      });
    };
    y.dtype() == DType::f64 ? fill(y.data<double>()) : fill(y.data<float>());
    return y;
  }
  ApotPoint point(const Array& x, const Array& alpha) const {
    const Tensor a = spread(alpha, x.rank()), wide = cast(x, alpha.dtype()), p = wide / a;
    const Tensor low = Array::full(x.shape(), is_signed() ? -1 : 0, alpha.dtype()),
                 high = Array::full(x.shape(), 1, alpha.dtype());
    return {nearest(wide.value(), alpha, false), greater(p, low) * greater(high, p)};
  }

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

struct ApotOp final : QuantizeOp {
  std::shared_ptr<const Apot> quantizer;
  double scale;  // of the gradient of alpha

  ApotOp(std::shared_ptr<const Apot> quantizer, double scale)
      : QuantizeOp({}), quantizer(std::move(quantizer)), scale(scale) {}
  std::string_view name() const override { return "apot"; }
  int bits() const override { return quantizer->options().bits; }
  Arrays forward(const Arrays& in) const override {
    return {cast(quantizer->nearest(in[0], in[1], true), in[0].dtype())};
  }
  Tensors vjp(const Vjp& v) const override {
    const Tensor &x = v.input(0), &alpha = v.input(1);
    const Tensor u = cast(v.grad(), alpha.dtype()), p = cast(x, alpha.dtype()) / spread(alpha, x.rank());
    const ApotPoint at = quantizer->point(x.value(), alpha.value());
    const Tensor terms = u * (at.level - at.inside * p),
                 sums = sum_to(terms, spread(alpha, x.rank()).shape());
    return {cast(u * at.inside, x.dtype()), reshape(sums, alpha.shape()) * scale};
  }
  Saved saved() const override { return {.inputs = {0, 1}}; }
};

Tensor Apot::apply(const Tensors& in) const {
  const auto self = std::dynamic_pointer_cast<const Apot>(shared_from_this());
  const int levels_above_zero = (1 << (options().bits - (is_signed() && options().bits > 1 ? 1 : 0))) - 1;
  return apply_op(ApotOp(self, gradient_scale(in[0].shape(), levels_above_zero)), in);
}

}  // namespace

QuantizerEntry apot_entry() {
  return {[](const QuantizerOptions& options, int64_t channels) {
            return std::make_shared<Apot>(options, channels);
          },
          {init_rule(), gradient_scale_rule("none")},
          "Li et al., ICLR'20; levels are sums of powers of two; learns the range; cannot be lowered"};
}

}  // namespace stairgrad::quant
