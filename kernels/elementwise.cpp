#include "elementwise.h"

#include "simd/simd.h"
#include "threads.h"

namespace stairgrad::kernels {
namespace {

// Elements of a piece of parallel work: about 10 us of it.
constexpr int64_t grain = 1 << 15;

void check_same(const char* what, const Array& a, const Array& b) {
  check(a.shape() == b.shape() && a.dtype() == b.dtype(), "[", what, "] got ", name_of(a.dtype()), a.shape(),
        " and ", name_of(b.dtype()), b.shape(), ", expected equal shapes and types");
}

// Calls body(loops of T, x, y, n) on pieces of x and of a new array like it.
template <class Body>
Array map(const Array& x, const Body& body) {
  Array y(x.shape(), x.dtype());
  dispatch_floating(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* from = x.data<T>();
    T* to = y.data<T>();
    parallel_for(x.size(), grain, [&, from, to](int64_t begin, int64_t end) {
      body(simd::loops<T>(), from + begin, to + begin, end - begin);
    });
  });
  return y;
}

}  // namespace

Array unary(Unary function, const Array& x) {
  return map(x, [=](const auto& loops, const auto* from, auto* to, int64_t n) {
    loops.unary[static_cast<int>(function)](from, to, n);
  });
}

Array affine(const Array& x, double scale, double shift) {
  return map(x, [=]<class T>(const simd::Loops<T>& loops, const T* from, T* to, int64_t n) {
    loops.affine(from, to, n, static_cast<simd::Real<T>>(scale), static_cast<simd::Real<T>>(shift));
  });
}

Array clamp(const Array& x, double low, double high) {
  check(low <= high, "[clamp] got the range ", low, " to ", high, ", expected low <= high");
  return map(x, [=]<class T>(const simd::Loops<T>& loops, const T* from, T* to, int64_t n) {
    loops.clamp(from, to, n, static_cast<simd::Real<T>>(low), static_cast<simd::Real<T>>(high));
  });
}

Array where(const Array& condition, const Array& a, const Array& b) {
  check_same("where", condition, a);
  check_same("where", a, b);
  Array y(a.shape(), a.dtype());
  dispatch_floating(a.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T *c = condition.data<T>(), *u = a.data<T>(), *v = b.data<T>();
    T* to = y.data<T>();
    parallel_for(y.size(), grain, [=](int64_t begin, int64_t end) {
      simd::loops<T>().where(c + begin, u + begin, v + begin, to + begin, end - begin);
    });
  });
  return y;
}

void accumulate(Array& dst, const Array& src) {
  check_same("accumulate", dst, src);
  dispatch_floating(dst.dtype(), [&](auto zero) {
    using T = decltype(zero);
    T* sum = dst.data<T>();
    const T* from = src.data<T>();
    parallel_for(dst.size(), grain, [=](int64_t begin, int64_t end) {
      simd::loops<T>().binary[static_cast<int>(Binary::add)](sum + begin, from + begin, sum + begin,
                                                             end - begin);
    });
  });
}

}  // namespace stairgrad::kernels
