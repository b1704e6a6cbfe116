#include "backward.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "../../kernels/simd/simd.h"
#include "../../kernels/threads.h"
#include "dsq_shape.h"
#include "loops.h"
#include "ranges.h"

namespace stairgrad::quant {

namespace baseline {
void enter_backward(BackwardTable&);
}
#ifdef STAIRGRAD_X86
namespace avx2 {
void enter_backward(BackwardTable&);
}
namespace avx512 {
void enter_backward(BackwardTable&);
}
#endif

namespace {

BackwardTable filled(void (*enter)(BackwardTable&)) {
  BackwardTable table;
  enter(table);
  return table;
}

// The loops of the instruction set that the kernels use.
const BackwardTable& table() {
  const simd::Table* used = &simd::table();
#ifdef STAIRGRAD_X86
  static const BackwardTable wide = filled(avx512::enter_backward), narrow = filled(avx2::enter_backward);
  if (used == simd::table_of(simd::Isa::avx512)) return wide;
  if (used == simd::table_of(simd::Isa::avx2)) return narrow;
#endif
  static const BackwardTable plain = filled(baseline::enter_backward);
  return plain;
}

template <class T>
const BackwardLoops<T>& loops() {
  if constexpr (std::is_same_v<T, float>)
    return table().f32;
  else if constexpr (std::is_same_v<T, bf16>)
    return table().b16;
  else
    return table().f64;
}

// Cuts `groups` slices of `size` elements in all into chunks of at most 16384, runs body(group, offset,
// count, sums) on each, and returns the sums of each group, added in a fixed order.
template <class Sums, class Body>
std::vector<Sums> over_chunks(int64_t size, int64_t groups, const Body& body) {
  constexpr int64_t chunk = 16384;
  const int64_t slice = size / groups, pieces = std::max<int64_t>(1, (slice + chunk - 1) / chunk);
  std::vector<Sums> partial(static_cast<size_t>(groups * pieces)), sums(static_cast<size_t>(groups));
  parallel_for(groups * pieces, std::max<int64_t>(1, chunk / std::max<int64_t>(1, slice)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i) {
                   const int64_t group = i / pieces, first = i % pieces * chunk;
                   body(group, group * slice + first, std::min(chunk, slice - first),
                        partial[static_cast<size_t>(i)]);
                 }
               });
  for (size_t i = 0; i < partial.size(); ++i) sums[i / static_cast<size_t>(pieces)] += partial[i];
  return sums;
}

// Of loops that sum nothing.
struct Nothing {
  void operator+=(Nothing) {}
};

// Parameters of bf16 data are f32.
template <class T>
using Parameter = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Calls body with a value of the type of x and `gradient`, f32, bf16 or f64.
template <class Body>
void dispatch(const char* name, const Array& gradient, const Array& x, const Body& body) {
  check(x.dtype() == gradient.dtype() && x.shape() == gradient.shape(), "[", name, "] got a gradient ",
        name_of(gradient.dtype()), gradient.shape(), " for x ", name_of(x.dtype()), x.shape());
  if (x.dtype() == DType::f64)
    body(double{});
  else if (x.dtype() == DType::bf16)
    body(bf16{});
  else
    body(float{});
}

// The polynomial in v on [-1/2, 1/2] through values at `nodes`, the zeros of a Chebyshev polynomial: its
// powers of v are matrix * values.
struct Interpolation {
  static constexpr int n = DsqCurve::terms;
  double nodes[n], matrix[n][n] = {};

  Interpolation() {
    // T_0 = 1, T_1 = 2 v, T_k+1 = 4 v T_k - T_k-1, as powers of v.
    double before[n] = {1}, now[n] = {0, 2};
    for (int j = 0; j < n; ++j) nodes[j] = 0.5 * angle_cosine(1, j);
    for (int k = 0; k < n; ++k) {
      const double* power = k == 0 ? before : now;
      for (int i = 0; i < n; ++i)
        for (int j = 0; j < n; ++j) matrix[i][j] += (k == 0 ? 1.0 : 2.0) / n * angle_cosine(k, j) * power[i];
      if (k == 0) continue;
      double next[n];
      for (int i = 0; i < n; ++i) next[i] = (i > 0 ? 4 * now[i - 1] : 0) - before[i];
      std::copy(now, now + n, before);
      std::copy(next, next + n, now);
    }
  }
  static double angle_cosine(int k, int j) { return std::cos(M_PI * k * (j + 0.5) / n); }

  void fit(const double* values, double* coefficients) const {
    for (int i = 0; i < n; ++i) {
      coefficients[i] = 0;
      for (int j = 0; j < n; ++j) coefficients[i] += matrix[i][j] * values[j];
    }
  }
};

DsqCurve curve_of(double alpha, double l, double range, int intervals, bool soft, bool f64) {
  DsqCurve curve{};
  curve.inverse = intervals / std::max(range, smallest_range);
  curve.offset = -l * curve.inverse;
  curve.intervals = intervals;
  curve.alpha = alpha;
  curve.kappa = std::min(std::log(2 / alpha - 1), 80.0);
  curve.live = !is_collapsed(range);
  curve.soft = soft;
  curve.smooth = !f64 && alpha >= 0.19;
  if (!curve.smooth) return curve;
  static const Interpolation interpolation;
  double phi[DsqCurve::terms], half_slope[DsqCurve::terms], by_alpha[DsqCurve::terms];
  for (int j = 0; j < DsqCurve::terms; ++j) {
    const double t = std::sqrt((interpolation.nodes[j] + 0.5) / 4);
    const DsqShape at = dsq_shape(t, curve.alpha, curve.kappa);
    phi[j] = at.phi / t;
    half_slope[j] = at.half_slope;
    by_alpha[j] = at.by_alpha / t;
  }
  interpolation.fit(phi, curve.phi);
  interpolation.fit(half_slope, curve.half_slope);
  interpolation.fit(by_alpha, curve.by_alpha);
  return curve;
}

}  // namespace

DsqGradients dsq_backward(const Array& gradient, const Array& x, const Array& alpha, const Array& l,
                          const Array& u, int intervals, bool soft) {
  const int64_t groups = alpha.size();
  DsqGradients result{Array(x.shape(), x.dtype()), Array(alpha.shape(), alpha.dtype()),
                      Array(l.shape(), l.dtype()), Array(u.shape(), u.dtype())};
  dispatch("dsq", gradient, x, [&](auto type) {
    using T = decltype(type);
    using P = Parameter<T>;
    std::vector<DsqCurve> curves;
    for (int64_t g = 0; g < groups; ++g) {
      const double low = l.data<P>()[g], range = u.data<P>()[g] - low;
      curves.push_back(curve_of(alpha.data<P>()[g], low, range, intervals, soft, std::is_same_v<T, double>));
    }
    const auto run = loops<T>().dsq;
    const T *from = x.data<T>(), *gradients = gradient.data<T>();
    T* to = result.x.data<T>();
    const auto sums = over_chunks<DsqSums>(x.size(), groups,
                                           [&](int64_t group, int64_t offset, int64_t count, DsqSums& part) {
                                             run(from + offset, gradients + offset, to + offset, count,
                                                 curves[static_cast<size_t>(group)], part);
                                           });
    for (int64_t g = 0; g < groups; ++g) {
      const DsqSums& sum = sums[static_cast<size_t>(g)];
      const double range = static_cast<double>(u.data<P>()[g]) - static_cast<double>(l.data<P>()[g]);
      result.alpha.data<P>()[g] = static_cast<P>(sum.alpha * range / (2 * intervals));
      result.u.data<P>()[g] = static_cast<P>(sum.upper / intervals);
      result.l.data<P>()[g] = static_cast<P>(sum.total - sum.upper / intervals);
    }
  });
  return result;
}

RoundedSums rounded_sums(const Array& gradient, const Array& x, const Array& scale, const Grid& codes,
                         const Array& dropped) {
  const auto parameter = [&] { return Array(scale.shape(), scale.dtype()); };
  RoundedSums result{Array(x.shape(), x.dtype()), parameter(), parameter(), parameter()};
  dispatch("rounded", gradient, x, [&](auto type) {
    using T = decltype(type);
    using P = Parameter<T>;
    const auto run = loops<T>().rounded;
    const T *from = x.data<T>(), *gradients = gradient.data<T>();
    const T* partly = dropped.has_value() ? dropped.data<T>() : nullptr;
    const P* scales = scale.data<P>();
    T* to = result.x.data<T>();
    const auto sums = over_chunks<GridSums>(
        x.size(), scale.size(), [&](int64_t group, int64_t offset, int64_t count, GridSums& part) {
          run(from + offset, partly ? partly + offset : nullptr, gradients + offset, to + offset, count,
              1 / static_cast<double>(scales[group]), codes.zero_point, codes.lo, codes.hi, part);
        });
    for (size_t g = 0; g < sums.size(); ++g) {
      result.rounding.data<P>()[g] = static_cast<P>(sums[g].rounding);
      result.below.data<P>()[g] = static_cast<P>(sums[g].below);
      result.above.data<P>()[g] = static_cast<P>(sums[g].above);
    }
  });
  return result;
}

double rounding_error(const std::vector<float>& values, const std::vector<float>& counts, const Grid& g,
                      double power, double bound) {
  return table().rounding_error(values.data(), counts.data(), static_cast<int64_t>(values.size()), g, power,
                                bound);
}

Array pass_within(const Array& gradient, const Array& x, const Ranges& ranges) {
  Array result(x.shape(), x.dtype());
  dispatch("pass_within", gradient, x, [&](auto type) {
    using T = decltype(type);
    const auto run = loops<T>().pass;
    const T *from = x.data<T>(), *gradients = gradient.data<T>();
    T* to = result.data<T>();
    over_chunks<Nothing>(x.size(), static_cast<int64_t>(ranges.size()),
                         [&](int64_t group, int64_t offset, int64_t count, Nothing&) {
                           const ValueRange& r = ranges[static_cast<size_t>(group)];
                           run(from + offset, gradients + offset, to + offset, count, r.low, r.high);
                         });
  });
  return result;
}

namespace {

// What the loops need of levels.
struct LevelTable {
  const std::vector<double>& levels;
  std::vector<float> thresholds;

  explicit LevelTable(const std::vector<double>& levels) : levels(levels) {
    for (size_t i = 1; i < levels.size(); ++i)
      thresholds.push_back(static_cast<float>((levels[i - 1] + levels[i]) / 2));
  }
  Levels get() const { return {levels.data(), thresholds.data(), static_cast<int64_t>(thresholds.size())}; }
};

double inverse_of(double alpha) { return 1 / std::max(alpha, smallest_range); }

}  // namespace

Array on_levels(const Array& x, const Array& alpha, const std::vector<double>& levels) {
  const LevelTable table(levels);
  const std::vector<double> scales = alpha.to_vector();
  Array result(x.shape(), x.dtype());
  dispatch_floating(x.dtype(), [&](auto type) {
    using T = decltype(type);
    const auto run = loops<T>().on_levels;
    const T* from = x.data<T>();
    T* to = result.data<T>();
    over_chunks<Nothing>(x.size(), alpha.size(), [&](int64_t group, int64_t offset, int64_t count, Nothing&) {
      const double scale = scales[static_cast<size_t>(group)];
      run(from + offset, to + offset, count, table.get(), inverse_of(scale), std::max(scale, smallest_range));
    });
  });
  return result;
}

LevelGradients levels_backward(const Array& gradient, const Array& x, const Array& alpha,
                               const std::vector<double>& levels) {
  const LevelTable table(levels);
  const std::vector<double> scales = alpha.to_vector();
  LevelGradients result{Array(x.shape(), x.dtype()), {}};
  dispatch("levels", gradient, x, [&](auto type) {
    using T = decltype(type);
    const auto run = loops<T>().levels;
    const T *from = x.data<T>(), *gradients = gradient.data<T>();
    T* to = result.x.data<T>();
    const std::vector<double> sums = over_chunks<double>(
        x.size(), alpha.size(), [&](int64_t group, int64_t offset, int64_t count, double& part) {
          run(from + offset, gradients + offset, to + offset, count, table.get(),
              inverse_of(scales[static_cast<size_t>(group)]), part);
        });
    result.alpha = cast(Array::of(sums), alpha.dtype()).reshape(alpha.shape());
  });
  return result;
}

Array tanh_slope(const Array& gradient, const Array& x, double k, double t, double middle) {
  Array result(x.shape(), x.dtype());
  dispatch("tanh_slope", gradient, x, [&](auto type) {
    using T = decltype(type);
    const auto run = loops<T>().tanh_slope;
    const T *from = x.data<T>(), *gradients = gradient.data<T>();
    T* to = result.data<T>();
    parallel_for(x.size(), 16384, [&](int64_t begin, int64_t end) {
      run(from + begin, gradients + begin, to + begin, end - begin, k, t, middle);
    });
  });
  return result;
}

namespace {

std::vector<MixedGrid> mixed_grids(const Array& shares, const Grids& grids) {
  check(!grids.empty() && shares.size() == static_cast<int64_t>(grids.size()) && shares.size() <= most_grids,
        "[mix] got ", shares.size(), " shares for ", grids.size(), " grids, expected one for each, at most ",
        most_grids);
  const std::vector<double> share = shares.to_vector();
  std::vector<MixedGrid> all;
  for (size_t j = 0; j < grids.size(); ++j) {
    const Grid& g = grids[j];
    all.push_back({grid::inverse(g.scale), g.zero_point, static_cast<double>(g.lo), static_cast<double>(g.hi),
                   g.scale, share[j]});
  }
  return all;
}

}  // namespace

Array mix_on_grids(const Array& x, const Array& shares, const Grids& grids) {
  const std::vector<MixedGrid> mixed = mixed_grids(shares, grids);
  Array result(x.shape(), x.dtype());
  dispatch_floating(x.dtype(), [&](auto type) {
    using T = decltype(type);
    const auto run = loops<T>().mix;
    const T* from = x.data<T>();
    T* to = result.data<T>();
    parallel_for(x.size(), 16384, [&](int64_t begin, int64_t end) {
      run(from + begin, to + begin, end - begin, mixed.data(), static_cast<int64_t>(mixed.size()));
    });
  });
  return result;
}

MixedGradients mixed_backward(const Array& gradient, const Array& x, const Array& shares,
                              const Grids& grids) {
  const std::vector<MixedGrid> mixed = mixed_grids(shares, grids);
  struct Sums {
    std::array<MixedSums, most_grids> of = {};
    void operator+=(const Sums& other) {
      for (size_t j = 0; j < of.size(); ++j) of[j] += other.of[j];
    }
  };
  MixedGradients result{Array(x.shape(), x.dtype()), {}, {}, {}, {}};
  Sums total;
  dispatch("mix", gradient, x, [&](auto type) {
    using T = decltype(type);
    const auto run = loops<T>().mix_backward;
    const T *from = x.data<T>(), *gradients = gradient.data<T>();
    T* to = result.x.data<T>();
    total = over_chunks<Sums>(x.size(), 1, [&](int64_t, int64_t offset, int64_t count, Sums& part) {
      run(from + offset, gradients + offset, to + offset, count, mixed.data(),
          static_cast<int64_t>(mixed.size()), part.of.data());
    })[0];
  });
  const auto by_grid = [&](const auto& figure) {
    std::vector<double> values;
    for (size_t j = 0; j < mixed.size(); ++j) values.push_back(figure(total.of[j]));
    return cast(Array::of(values), shares.dtype());
  };
  result.values = by_grid([](const MixedSums& s) { return s.value; });
  result.rounding = by_grid([](const MixedSums& s) { return s.grid.rounding; });
  result.below = by_grid([](const MixedSums& s) { return s.grid.below; });
  result.above = by_grid([](const MixedSums& s) { return s.grid.above; });
  return result;
}

}  // namespace stairgrad::quant
