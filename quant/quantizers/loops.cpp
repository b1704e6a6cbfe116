#include "loops.h"

#include "../../kernels/simd/functions.h"
#include "dsq_shape.h"

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
    if (n < i + width<T>) {
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

// c[0] + c[1] v + c[2] v^2 + ..., the even and the odd terms apart: two short chains instead of one long one.
class Polynomial {
 public:
  explicit Polynomial(const double (&c)[DsqCurve::terms]) {
    for (int i = 0; i < DsqCurve::terms; ++i) c_[i] = splat<F32>(static_cast<float>(c[i]));
  }
  F32 operator()(F32 v, F32 square) const {
    constexpr int last = DsqCurve::terms - 1;
    static_assert(last % 2 == 0);
    F32 even = c_[last], odd = c_[last - 1];
    for (int i = last - 2; i > 0; i -= 2) {
      even = even * square + c_[i];
      odd = odd * square + c_[i - 1];
    }
    return (even * square + c_[0]) + odd * v;
  }

 private:
  F32 c_[DsqCurve::terms];
};

// Without exp or division, and to three units in the last place.
class Smooth {
 public:
  explicit Smooth(const DsqCurve& curve)
      : phi_(curve.phi), half_slope_(curve.half_slope), by_alpha_(curve.by_alpha) {}

  Shape<F32> operator()(F32 t) const {
    const F32 v = 4.0f * t * t - 0.5f, square = v * v;
    return {t * phi_(v, square), half_slope_(v, square), t * by_alpha_(v, square)};
  }

 private:
  Polynomial phi_, half_slope_, by_alpha_;
};

// 2^z for |z| < 126, where it needs half of what exp() does: 2^k * 2^f with |f| <= 1/2, within 8e-8.
inline F32 power_of_two(F32 z) {
  const F32 shifted = z + 0x1.8p23f, f = z - (shifted - 0x1.8p23f);
  // Estrin's rule: a shorter chain than Horner's, which is what limits this loop.
  const F32 square = f * f, low = f * 0.693146967f + 1.00000007f, middle = f * 0.0555071327f + 0.240221197f;
  const F32 y = low + square * (middle + square * (f * 0.00132764720f + 0.00967554133f));
  return reinterpret_cast<F32>(reinterpret_cast<U32>(y) + (reinterpret_cast<U32>(shifted) << 23));
}

// For alpha below 0.19, by e = exp(2 kappa t): tanh = (e - 1) / (e + 1), and 1 - tanh^2 = 1 / cosh^2 = 4 e /
// (e + 1)^2 keeps its digits where tanh is near 1.
class Exponential {
 public:
  explicit Exponential(const DsqCurve& curve)
      : exponent_(splat<F32>(static_cast<float>(2 * curve.kappa * 1.4426950408889634))),
        scale_(splat<F32>(static_cast<float>(1 / ::tanh(curve.kappa / 2)))),
        scale_squared_(scale_ * scale_),
        half_slope_(splat<F32>(static_cast<float>(2 * curve.kappa / ::tanh(curve.kappa / 2)))),
        bend_(
            splat<F32>(static_cast<float>(8 / (::tanh(curve.kappa / 2) * curve.alpha * (2 - curve.alpha))))) {
  }

  Shape<F32> operator()(F32 t) const {
    const F32 e = power_of_two(exponent_ * t), d = 1.0f / (e + 1.0f);
    const F32 tanh = (e - 1.0f) * d, square = e * d * d;  // of 1 / (2 cosh)
    return {scale_ * tanh, half_slope_ * square, scale_squared_ * tanh - bend_ * t * square};
  }

 private:
  F32 exponent_, scale_, scale_squared_, half_slope_, bend_;
};

// In double, by definition.
class Definition {
 public:
  explicit Definition(const DsqCurve& curve) : alpha_(curve.alpha), kappa_(curve.kappa) {}
  Shape<double> operator()(double t) const {
    const DsqShape at = dsq_shape(t, alpha_, kappa_);
    return {at.phi, at.half_slope, at.by_alpha};
  }

 private:
  double alpha_, kappa_;
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

template <class T, class Curve>
void dsq_by(const T* x, const T* u, T* dx, int64_t n, const DsqCurve& curve, DsqSums& sums) {
  curve.soft ? dsq_on<T, true, Curve>(x, u, dx, n, curve, sums)
             : dsq_on<T, false, Curve>(x, u, dx, n, curve, sums);
}

template <class T>
void dsq(const T* x, const T* u, T* dx, int64_t n, const DsqCurve& curve, DsqSums& sums) {
  if constexpr (std::is_same_v<T, double>)
    dsq_by<T, Definition>(x, u, dx, n, curve, sums);
  else if (curve.smooth)
    dsq_by<T, Smooth>(x, u, dx, n, curve, sums);
  else
    dsq_by<T, Exponential>(x, u, dx, n, curve, sums);
}

template <class T, bool may_drop>
void rounded_where(const T* x, const T* y, const T* u, T* dx, int64_t n, double inverse, double zero,
                   double lo, double hi, GridSums& sums) {
  using V = Vector<T>;
  const V scale = splat<V>(inverse), shift = splat<V>(zero), low = splat<V>(lo), high = splat<V>(hi);
  const V none = splat<V>(0);
  double total[3] = {};
  accumulate<T, 3>(n, total, [&](V* terms, int64_t i, auto... rest) {
    const V upper = load(u + i, rest...), at = load(x + i, rest...), p = at * scale + shift;
    V gradient = upper, through = none;
    if constexpr (may_drop) {
      const auto dropped = load(y + i, rest...) == at;
      gradient = dropped ? none : upper;
      through = dropped ? upper : none;
    }
    const auto inside = (p > low) & (p < high);
    const auto over = p >= high;
    const V passed = inside ? gradient : none;
    terms[0] = passed * (inside ? round(p) - p : none);
    terms[1] = (inside | over) ? none : gradient;
    terms[2] = over ? gradient : none;
    store(dx + i, passed + through, rest...);
  });
  sums.rounding += total[0];
  sums.below += total[1];
  sums.above += total[2];
}

template <class T>
void rounded(const T* x, const T* y, const T* u, T* dx, int64_t n, double inverse, double zero, double lo,
             double hi, GridSums& sums) {
  y ? rounded_where<T, true>(x, y, u, dx, n, inverse, zero, lo, hi, sums)
    : rounded_where<T, false>(x, y, u, dx, n, inverse, zero, lo, hi, sums);
}

double rounding_error(const float* values, const float* counts, int64_t n, const Grid& g, double power,
                      double bound) {
  constexpr int64_t block = 512;
  const F32 inverse = splat<F32>(grid::inverse(g.scale)), zero = splat<F32>(g.zero_point);
  const F32 low = splat<F32>(g.lo), high = splat<F32>(g.hi), scale = splat<F32>(g.scale);
  const F32 half_power = splat<F32>(power / 2);
  double sum = 0;
  for (int64_t first = 0; first < n && sum <= bound; first += block)
    accumulate<float, 1>(
        n - first < block ? n - first : block, &sum, [&](F32* terms, int64_t i, auto... rest) {
          const F32 value = load(values + first + i, rest...);
          const F32 code = round(limited(value * inverse + zero, low, high));
          const F32 difference = value - (code - zero) * scale;
          terms[0] = load(counts + first + i, rest...) * exp(half_power * log(difference * difference));
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

// In f32, which decides between two levels.
inline F32 position(F32 x, F32 by) { return x * by; }
inline double position(double x, double by) { return static_cast<float>(x) * static_cast<float>(by); }

// A table of at most 256 levels, walked through: the lanes never part.
template <class V>
inline V level_of(V x, V by, const Levels& levels) {
  const V p = position(x, by);
  V level = splat<V>(levels.levels[0]);
  for (int64_t i = 0; i < levels.count; ++i)
    level = p > splat<V>(levels.thresholds[i]) ? splat<V>(levels.levels[i + 1]) : level;
  return level;
}

template <class T>
void on_levels(const T* x, T* y, int64_t n, const Levels& levels, double inverse, double scale) {
  using V = Vector<T>;
  const V by = splat<V>(inverse), unit = splat<V>(scale);
  map(
      y, n, [&](V v) { return level_of(v, by, levels) * unit; }, x);
}

template <class T>
void levels(const T* x, const T* u, T* dx, int64_t n, const Levels& levels, double inverse, double& sum) {
  using V = Vector<T>;
  const V by = splat<V>(inverse), none = splat<V>(0);
  const V low = splat<V>(levels.levels[0]), high = splat<V>(levels.levels[levels.count]);
  accumulate<T, 1>(n, &sum, [&](V* terms, int64_t i, auto... rest) {
    const V gradient = load(u + i, rest...), at = load(x + i, rest...), p = at * by;
    const V level = level_of(at, by, levels);
    const auto inside = (p > low) & (p < high);
    terms[0] = gradient * (inside ? level - p : level);
    store(dx + i, inside ? gradient : none, rest...);
  });
}

template <class T>
void tanh_slope(const T* x, const T* u, T* dx, int64_t n, double k, double t, double middle) {
  using V = Vector<T>;
  const V steepness = splat<V>(t), height = splat<V>(k * t), center = splat<V>(middle), none = splat<V>(0);
  const V one = splat<V>(1);
  map(
      dx, n,
      [=](V at, V gradient) {
        const V bent = tanh(steepness * ((at == at ? at : none) - center));
        return gradient * (height * (one - bent * bent));
      },
      x, u);
}

template <class T>
void mix(const T* x, T* y, int64_t n, const MixedGrid* grids, int64_t count) {
  using V = Vector<T>;
  V inverse[most_grids], zero[most_grids], low[most_grids], high[most_grids], unit[most_grids];
  for (int64_t j = 0; j < count; ++j) {
    inverse[j] = splat<V>(grids[j].inverse);
    zero[j] = splat<V>(grids[j].zero);
    low[j] = splat<V>(grids[j].lo);
    high[j] = splat<V>(grids[j].hi);
    unit[j] = splat<V>(grids[j].share * grids[j].scale);
  }
  map(
      y, n,
      [&](V v) {
        V sum = splat<V>(0);
        for (int64_t j = 0; j < count; ++j)
          sum += (round(limited(v * inverse[j] + zero[j], low[j], high[j])) - zero[j]) * unit[j];
        return sum;
      },
      x);
}

// Block by block, one grid after the other: a block stays in the first cache, and the sums of a grid in
// registers.
template <class T>
void mix_backward(const T* x, const T* u, T* dx, int64_t n, const MixedGrid* grids, int64_t count,
                  MixedSums* sums) {
  using V = Vector<T>;
  constexpr int64_t block = 512;
  std::conditional_t<std::is_same_v<T, double>, double, float>
      passed[block];  // shares that pass the gradient
  const V none = splat<V>(0);
  for (int64_t first = 0; first < n; first += block) {
    const int64_t size = n - first < block ? n - first : block;
    for (int64_t j = 0; j < count; ++j) {
      const MixedGrid& g = grids[j];
      const V inverse = splat<V>(g.inverse), zero = splat<V>(g.zero), low = splat<V>(g.lo),
              high = splat<V>(g.hi);
      const V scale = splat<V>(g.scale), share = splat<V>(g.share);
      double total[4] = {};
      accumulate<T, 4>(size, total, [&](V* terms, int64_t i, auto... rest) {
        const V gradient = load(u + first + i, rest...), p = load(x + first + i, rest...) * inverse + zero;
        const auto inside = (p > low) & (p < high);
        const auto over = p >= high;
        const V code = round(limited(p, low, high));
        terms[0] = gradient * ((code - zero) * scale);
        terms[1] = inside ? gradient * (code - p) : none;
        terms[2] = (inside | over) ? none : gradient;
        terms[3] = over ? gradient : none;
        const V before = j == 0 ? none : load(passed + i, rest...);
        store(passed + i, before + (inside ? share : none), rest...);
      });
      sums[j] += {total[0], {total[1], total[2], total[3]}};
    }
    map(
        dx + first, size, [](V gradient, V share) { return gradient * share; }, u + first, passed);
  }
}

}  // namespace

void enter_backward(BackwardTable& table);
void enter_backward(BackwardTable& table) {
  table.rounding_error = rounding_error;
  table.f32 = {dsq<float>,    rounded<float>,    pass<float>, on_levels<float>,
               levels<float>, tanh_slope<float>, mix<float>,  mix_backward<float>};
  table.b16 = {dsq<bf16>,    rounded<bf16>,    pass<bf16>, on_levels<bf16>,
               levels<bf16>, tanh_slope<bf16>, mix<bf16>,  mix_backward<bf16>};
  table.f64 = {dsq<double>,    rounded<double>,    pass<double>, on_levels<double>,
               levels<double>, tanh_slope<double>, mix<double>,  mix_backward<double>};
}

}  // namespace stairgrad::quant::STAIRGRAD_ISA
