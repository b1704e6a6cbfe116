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

template <class T>
void normalise(const T* x, const T* skip, T* y, int64_t rows, int64_t width, const Real<T>* mean,
               const Real<T>* scale, const Real<T>* shift, bool relu) {
  const auto zero = splat<Vector<T>>(0);
  for (int64_t r = 0; r < rows; ++r) {
    const auto row = [=](int64_t i, auto... rest) {
      auto v = (load(x + i, rest...) - load(mean + i, rest...)) * load(scale + i, rest...) +
               load(shift + i, rest...);
      if (skip) v = v + load(skip + i, rest...);
      if (relu) v = v < zero ? zero : v;
      store(y + i, v, rest...);
    };
    for_vectors<T>(width, row, row);
    x += width;
    y += width;
    if (skip) skip += width;
  }
}

// The gradient behind the ReLU, if there was one.
template <class T, class... Rest>
inline Vector<T> masked(const T* diff_y, const T* y, int64_t i, Rest... rest) {
  const auto g = load(diff_y + i, rest...);
  const auto zero = splat<Vector<T>>(0);
  return y ? (load(y + i, rest...) > zero ? g : zero) : g;
}

template <class T>
void norm_gradient_sums(const T* x, const T* diff_y, const T* y, int64_t rows, int64_t width,
                        const Real<T>* mean, Real<T>* sum, Real<T>* products) {
  for_columns<T>(rows, width, [=](int64_t first, int64_t count, int64_t i, auto... rest) {
    const auto m = load(mean + i, rest...);
    auto s = load(sum + i, rest...), p = load(products + i, rest...);
    for (int64_t r = first; r < first + count; ++r) {
      const auto g = masked(diff_y, y, r * width + i, rest...);
      s = s + g;
      p = p + g * (load(x + r * width + i, rest...) - m);
    }
    store(sum + i, s, rest...);
    store(products + i, p, rest...);
  });
}

template <class T>
void norm_gradient(const T* x, const T* diff_y, const T* y, T* diff_x, T* diff_skip, int64_t rows,
                   int64_t width, const Real<T>* mean, const Real<T>* offset, const Real<T>* slope,
                   const Real<T>* scale) {
  for (int64_t r = 0; r < rows; ++r) {
    const auto row = [=](int64_t i, auto... rest) {
      const auto g = masked(diff_y, y, i, rest...);
      const auto d = load(x + i, rest...) - load(mean + i, rest...);
      if (diff_skip) store(diff_skip + i, g, rest...);
      const auto centred = g - load(offset + i, rest...) - d * load(slope + i, rest...);
      store(diff_x + i, centred * load(scale + i, rest...), rest...);
    };
    for_vectors<T>(width, row, row);
    x += width;
    diff_y += width;
    diff_x += width;
    if (y) y += width;
    if (diff_skip) diff_skip += width;
  }
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
