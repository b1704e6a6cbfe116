#include "loops.h"

#include "../../kernels/simd/functions.h"

namespace stairgrad::quant::STAIRGRAD_ISA {
namespace {

using namespace simd::STAIRGRAD_ISA;

// Elements of a step: the lanes that sums run over, on every instruction set.
template <class T>
constexpr int64_t width = std::is_same_v<T, double> ? 4 : 16;

// Runs body(i, rest..., terms) over n elements by vectors and adds up the `count` terms it gives for each.
template <class T, int count, class Body>
inline void accumulate(int64_t n, double* sums, Body body) {
  constexpr int64_t vectors = width<T> / lanes<T>, steps = 512 / width<T>;
  for (int64_t i = 0; i < n;) {
    Vector<T> partial[count][vectors] = {};
    const auto add = [&](int64_t vector, auto... position) {
      Vector<T> terms[count];
      body(terms, position...);
      for (int term = 0; term < count; ++term) partial[term][vector] += terms[term];
    };
    for (int64_t step = 0; step < steps && i + width<T> <= n; ++step, i += width<T>)
      for (int64_t v = 0; v < vectors; ++v) add(v, i + v * lanes<T>);
    if (i + width < T >> n) {
      for (int64_t v = 0; v < vectors && i < n; ++v, i += lanes<T>) {
        if (i + lanes<T> <= n)
          add(v, i);
        else
          add(v, i, n - i);
      }
    }
    for (int term = 0; term < count; ++term) {
      std::conditional_t<std::is_same_v<T, double>, double, float> lane[width<T>];
      for (int64_t v = 0; v < vectors; ++v) store(lane + v * lanes<T>, partial[term][v]);
      for (const auto value : lane) sums[term] += static_cast<double>(value);
    }
  }
}

// x limited to [lo, hi]; NaN becomes lo, as in kernels/grid.h.
template <class V>
inline V limited(V x, V lo, V hi) {
  return x > lo ? (x < hi ? x : hi) : lo;
}

// What DSQ's backward needs at t: phi, half its derivative, and its derivative by alpha.
template <class V>
struct Shape {
  V phi, half_slope, by_alpha;
};

// 2^z for |z| < 126, where it needs half of what exp() does: 2^k * 2^f with |f| <= 1/2, within 8e-8.
inline F32 power_of_two(F32 z) {
  const F32 shifted = z + 0x1.8p23f, f = z - (shifted - 0x1.8p23f);
  // Estrin's rule: a shorter chain than Horner's, which is what limits this loop.
  const F32 square = f * f, low = f * 0.693146967f + 1.00000007f, middle = f * 0.0555071327f + 0.240221197f;
  const F32 y = low + square * (middle + square * (f * 0.00132764720f + 0.00967554133f));
  return reinterpret_cast<F32>(reinterpret_cast<U32>(y) + (reinterpret_cast<U32>(shifted) << 23));
}
inline double power_of_two(double z) { return ::exp2(z); }

// phi = tanh(kappa t) / tanh(kappa / 2) by e = exp(2 kappa t): tanh = (e - 1) / (e + 1), and 1 - tanh^2 = 1 /
// cosh^2 = 4 e / (e + 1)^2 keeps its digits where tanh is near 1.
template <class V>
class Exponential {
 public:
  explicit Exponential(const DsqCurve& curve)
      : exponent_(splat<V>(2 * curve.kappa * 1.4426950408889634)),
        scale_(splat<V>(1 / ::tanh(curve.kappa / 2))),
        scale_squared_(scale_ * scale_),
        half_slope_(splat<V>(2 * curve.kappa / ::tanh(curve.kappa / 2))),
        bend_(splat<V>(8 / (::tanh(curve.kappa / 2) * curve.alpha * (2 - curve.alpha)))) {}

  Shape<V> operator()(V t) const {
    const V one = splat<V>(1), e = power_of_two(exponent_ * t), d = one / (e + one);
    const V tanh = (e - one) * d, square = e * d * d;  // of 1 / (2 cosh)
    return {scale_ * tanh, half_slope_ * square, scale_squared_ * tanh - bend_ * t * square};
  }

 private:
  V exponent_, scale_, scale_squared_, half_slope_, bend_;
};

// tanh(y) / y as a series in z = y^2, and its derivative.
template <class V>
inline V series(V z) {
  const V c4 = splat<V>(62.0 / 2835), c3 = splat<V>(-17.0 / 315), c2 = splat<V>(2.0 / 15),
          c1 = splat<V>(-1.0 / 3);
  return (((c4 * z + c3) * z + c2) * z + c1) * z + splat<V>(1);
}
template <class V>
inline V series_slope(V z) {
  const V c4 = splat<V>(4 * 62.0 / 2835), c3 = splat<V>(-3 * 17.0 / 315), c2 = splat<V>(2 * 2.0 / 15);
  return ((c4 * z + c3) * z + c2) * z + splat<V>(-1.0 / 3);
}

// phi = 2 t S(w t^2) / S(w / 4) with S(y^2) = tanh(y) / y and w = kappa^2: nothing cancels as kappa goes to
// 0.
template <class V>
class Series {
 public:
  explicit Series(const DsqCurve& curve)
      : w_(splat<V>(curve.kappa * curve.kappa)), end_(series(w_ * splat<V>(0.25))) {
    inverse_ = splat<V>(1) / end_;
    end_slope_ = series_slope(w_ * splat<V>(0.25)) * splat<V>(0.25);
    // dw / dalpha, times 2 / S(w / 4)^2
    bend_ = splat<V>(-8 * curve.kappa / (curve.alpha * (2 - curve.alpha))) * inverse_ * inverse_;
  }

  Shape<V> operator()(V t) const {
    const V square = t * t, z = w_ * square, s = series(z);
    return {(t + t) * s * inverse_, (splat<V>(1) - z * s * s) * inverse_,
            bend_ * t * (series_slope(z) * square * end_ - s * end_slope_)};
  }

 private:
  V w_, end_, inverse_, end_slope_, bend_;
};

template <class T, bool soft, class Curve>
void dsq_on(const T* x, const T* u, T* dx, int64_t n, const DsqCurve& curve, DsqSums& sums) {
  using V = Vector<T>;
  const Curve shape(curve);
  const V inverse = splat<V>(curve.inverse), offset = splat<V>(curve.offset);
  const V zero = splat<V>(0), one = splat<V>(1), half = splat<V>(0.5);
  const V end = splat<V>(curve.intervals), live = splat<V>(curve.live ? 1 : 0);

  double total[3] = {};
  accumulate<T, 3>(n, total, [&](V* terms, int64_t i, auto... rest) {
    const V gradient = load(u + i, rest...), v = load(x + i, rest...) * inverse + offset;
    // At a border between two cells either will do: phi and its slope are the same.
    const V c = limited(v, zero, end), code = round(c), cell = round(c - half);
    const Shape<V> at = shape(c - half - cell);
    const auto inside = (v > zero) & (v < end);
    const V within = inside ? gradient * live : zero, counted = inside ? gradient * live : gradient;
    const V to_x = within * at.half_slope;
    const V direct = soft ? cell + (at.phi + one) * half : code;
    terms[0] = within * at.by_alpha;
    terms[1] = counted * direct - to_x * c;
    terms[2] = counted - to_x;
    store(dx + i, to_x, rest...);
  });
  sums.alpha += total[0];
  sums.upper += total[1];
  sums.total += total[2];
}

template <class T>
void dsq(const T* x, const T* u, T* dx, int64_t n, const DsqCurve& curve, DsqSums& sums) {
  using V = Vector<T>;
  const auto run = curve.near_linear
                       ? (curve.soft ? dsq_on<T, true, Series<V>> : dsq_on<T, false, Series<V>>)
                       : (curve.soft ? dsq_on<T, true, Exponential<V>> : dsq_on<T, false, Exponential<V>>);
  run(x, u, dx, n, curve, sums);
}

template <class T>
double lsq(const T* x, const T* u, T* dx, int64_t n, double inverse, double zero, double lo, double hi) {
  using V = Vector<T>;
  const auto constant = [](double value) { return splat<V>(value); };
  const V scale = constant(inverse), shift = constant(zero), low = constant(lo), high = constant(hi);
  const V none = constant(0);
  double sum = 0;
  accumulate<T, 1>(n, &sum, [&](V* terms, int64_t i, auto... rest) {
    const V gradient = load(u + i, rest...), p = load(x + i, rest...) * scale + shift;
    const auto inside = (p > low) & (p < high);
    const V code = round(limited(p, low, high));
    terms[0] = gradient * (code - (inside ? p : shift));
    store(dx + i, inside ? gradient : none, rest...);
  });
  return sum;
}

template <class T>
void pass(const T* x, const T* u, T* dx, int64_t n, double l, double h) {
  using V = Vector<T>;
  const V low = splat<V>(l), high = splat<V>(h), none = splat<V>(0);
  map(
      dx, n, [=](V at, V gradient) { return ((at >= low) & (at <= high)) ? gradient : none; }, x, u);
}

}  // namespace

void enter_backward(BackwardTable& table);
void enter_backward(BackwardTable& table) {
  table.f32 = {dsq<float>, lsq<float>, pass<float>};
  table.b16 = {dsq<bf16>, lsq<bf16>, pass<bf16>};
  table.f64 = {dsq<double>, lsq<double>, pass<double>};
}

}  // namespace stairgrad::quant::STAIRGRAD_ISA
