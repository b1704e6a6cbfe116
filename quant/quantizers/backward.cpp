#include "backward.h"

#include <algorithm>
#include <cmath>

#include "../../kernels/simd/simd.h"
#include "../../kernels/threads.h"
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

// f32 takes the series for phi where the closed form would lose more than three digits, f64 where it would
// lose five.
template <class T>
constexpr double near_linear = std::is_same_v<T, double> ? 0.05 : 0.5;

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
      const double low = l.data<P>()[g], range = u.data<P>()[g] - low, a = alpha.data<P>()[g];
      const double inverse = intervals / std::max(range, smallest_range),
                   kappa = std::min(std::log(2 / a - 1), 80.0);
      curves.push_back({inverse, -low * inverse, static_cast<double>(intervals), a, kappa,
                        !is_collapsed(range), soft, std::abs(kappa) < near_linear<T>});
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

LsqGradients lsq_backward(const Array& gradient, const Array& x, const Array& scale, const Grid& codes) {
  LsqGradients result{Array(x.shape(), x.dtype()), Array(scale.shape(), scale.dtype())};
  dispatch("lsq", gradient, x, [&](auto type) {
    using T = decltype(type);
    using P = Parameter<T>;
    const auto run = loops<T>().lsq;
    const T *from = x.data<T>(), *gradients = gradient.data<T>();
    const P* scales = scale.data<P>();
    T* to = result.x.data<T>();
    const auto sums = over_chunks<double>(
        x.size(), scale.size(), [&](int64_t group, int64_t offset, int64_t count, double& part) {
          part = run(from + offset, gradients + offset, to + offset, count,
                     1 / static_cast<double>(scales[group]), codes.zero_point, codes.lo, codes.hi);
        });
    for (size_t g = 0; g < sums.size(); ++g) result.scale.data<P>()[g] = static_cast<P>(sums[g]);
  });
  return result;
}

Array pass_on_grid(const Array& gradient, const Array& x, const Grids& grids) {
  Array result(x.shape(), x.dtype());
  dispatch("ste", gradient, x, [&](auto type) {
    using T = decltype(type);
    const auto run = loops<T>().pass;
    const T *from = x.data<T>(), *gradients = gradient.data<T>();
    T* to = result.data<T>();
    struct Nothing {
      void operator+=(Nothing) {}
    };
    over_chunks<Nothing>(x.size(), static_cast<int64_t>(grids.size()),
                         [&](int64_t group, int64_t offset, int64_t count, Nothing&) {
                           const Grid& g = grids[static_cast<size_t>(group)];
                           const double scale = g.scale, zero = g.zero_point;
                           run(from + offset, gradients + offset, to + offset, count,
                               (g.lo - zero - 0.5) * scale, (g.hi - zero + 0.5) * scale);
                         });
  });
  return result;
}

}  // namespace stairgrad::quant
