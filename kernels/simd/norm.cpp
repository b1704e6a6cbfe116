// Batch normalisation: rows of `width` channels.
#include "vector.h"

namespace stairgrad::simd::STAIRGRAD_ISA {
namespace {

template <class T>
void moments(const T* x, int64_t rows, int64_t width, const Real<T>* pivot, Real<T>* sum, Real<T>* squares) {
  for_columns<T>(rows, width, [=](int64_t first, int64_t count, int64_t i, auto... rest) {
    const auto p = load(pivot + i, rest...);
    auto s = load(sum + i, rest...), q = load(squares + i, rest...);
    for (int64_t r = first; r < first + count; ++r) {
      const auto d = load(x + r * width + i, rest...) - p;
      s = s + d;
      q = q + d * d;
    }
    store(sum + i, s, rest...);
    store(squares + i, q, rest...);
  });
}

template <class T, bool with_skip, bool relu>
void normalise_rows(const T* x, const T* skip, T* y, int64_t rows, int64_t width, const Real<T>* mean,
                    const Real<T>* scale, const Real<T>* shift) {
  const auto zero = splat<Vector<T>>(0);
  for_columns<T>(rows, width, [=](int64_t first, int64_t count, int64_t i, auto... rest) {
    const auto m = load(mean + i, rest...), k = load(scale + i, rest...), b = load(shift + i, rest...);
    for (int64_t r = first; r < first + count; ++r) {
      const int64_t at = r * width + i;
      auto v = (load(x + at, rest...) - m) * k + b;
      if constexpr (with_skip) v = v + load(skip + at, rest...);
      if constexpr (relu) v = v < zero ? zero : v;
      store(y + at, v, rest...);
    }
  });
}

template <class T>
void normalise(const T* x, const T* skip, T* y, int64_t rows, int64_t width, const Real<T>* mean,
               const Real<T>* scale, const Real<T>* shift, bool relu) {
  const auto loop = skip ? (relu ? normalise_rows<T, true, true> : normalise_rows<T, true, false>)
                         : (relu ? normalise_rows<T, false, true> : normalise_rows<T, false, false>);
  loop(x, skip, y, rows, width, mean, scale, shift);
}

// The gradient behind the ReLU, if there was one.
template <bool masked, class T, class... Rest>
inline Vector<T> gradient(const T* diff_y, const T* y, int64_t i, Rest... rest) {
  const auto g = load(diff_y + i, rest...), zero = splat<Vector<T>>(0);
  if constexpr (masked)
    return load(y + i, rest...) > zero ? g : zero;
  else
    return g;
}

template <class T, bool masked, bool keep>
void gradient_sums(const T* x, const T* diff_y, const T* y, T* kept, int64_t rows, int64_t width,
                   const Real<T>* mean, Real<T>* sum, Real<T>* products) {
  for_columns<T>(rows, width, [=](int64_t first, int64_t count, int64_t i, auto... rest) {
    const auto m = load(mean + i, rest...);
    auto s = load(sum + i, rest...), p = load(products + i, rest...);
    for (int64_t r = first; r < first + count; ++r) {
      const int64_t at = r * width + i;
      const auto g = gradient<masked>(diff_y, y, at, rest...);
      if constexpr (keep) store(kept + at, g, rest...);
      s = s + g;
      p = p + g * (load(x + at, rest...) - m);
    }
    store(sum + i, s, rest...);
    store(products + i, p, rest...);
  });
}

template <class T>
void norm_gradient_sums(const T* x, const T* diff_y, const T* y, T* diff_skip, int64_t rows, int64_t width,
                        const Real<T>* mean, Real<T>* sum, Real<T>* products) {
  const auto loop = y ? (diff_skip ? gradient_sums<T, true, true> : gradient_sums<T, true, false>)
                      : (diff_skip ? gradient_sums<T, false, true> : gradient_sums<T, false, false>);
  loop(x, diff_y, y, diff_skip, rows, width, mean, sum, products);
}

template <class T, bool masked>
void gradient_rows(const T* x, const T* diff_y, const T* y, T* diff_x, int64_t rows, int64_t width,
                   const Real<T>* mean, const Real<T>* offset, const Real<T>* slope, const Real<T>* scale) {
  for_columns<T>(rows, width, [=](int64_t first, int64_t count, int64_t i, auto... rest) {
    const auto m = load(mean + i, rest...), o = load(offset + i, rest...), k = load(slope + i, rest...),
               f = load(scale + i, rest...);
    for (int64_t r = first; r < first + count; ++r) {
      const int64_t at = r * width + i;
      const auto d = load(x + at, rest...) - m;
      store(diff_x + at, (gradient<masked>(diff_y, y, at, rest...) - o - d * k) * f, rest...);
    }
  });
}

template <class T>
void norm_gradient(const T* x, const T* diff_y, const T* y, T* diff_x, int64_t rows, int64_t width,
                   const Real<T>* mean, const Real<T>* offset, const Real<T>* slope, const Real<T>* scale) {
  const auto loop = y ? gradient_rows<T, true> : gradient_rows<T, false>;
  loop(x, diff_y, y, diff_x, rows, width, mean, offset, slope, scale);
}

template <class T>
void enter(Loops<T>& loops) {
  loops.moments = moments<T>;
  loops.normalise = normalise<T>;
  loops.norm_gradient_sums = norm_gradient_sums<T>;
  loops.norm_gradient = norm_gradient<T>;
}

}  // namespace

void enter_norm(Table& table);
void enter_norm(Table& table) {
  enter(table.f32);
  enter(table.b16);
  enter(table.f64);
}

}  // namespace stairgrad::simd::STAIRGRAD_ISA
