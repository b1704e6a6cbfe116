// Batch normalisation: rows of `width` channels.
#include "vector.h"

namespace stairgrad::simd::STAIRGRAD_ISA {
namespace {

template <class T>
void moments(const T* x, int64_t rows, int64_t width, const Real<T>* pivot, Real<T>* sum, Real<T>* squares) {
  for_columns<T>(rows, width, [=](int64_t first, auto count, int64_t i, auto... rest) {
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
                    const Real<T>* scale, const Real<T>* shift, Real<T> high) {
  const auto zero = splat<Vector<T>>(0), limit = splat<Vector<T>>(high);
  for (int64_t r = 0; r < rows; ++r, x += width, y += width) {
    const auto column = [=](int64_t i, auto... rest) {
      auto v = (load(x + i, rest...) - load(mean + i, rest...)) * load(scale + i, rest...) +
               load(shift + i, rest...);
      if constexpr (with_skip) v = v + load(skip + i, rest...);
      if constexpr (relu) v = v < zero ? zero : v > limit ? limit : v;
      store(y + i, v, rest...);
    };
    for_vectors<T>(width, column, column);
    if constexpr (with_skip) skip += width;
  }
}

template <class T>
void normalise(const T* x, const T* skip, T* y, int64_t rows, int64_t width, const Real<T>* mean,
               const Real<T>* scale, const Real<T>* shift, bool relu, Real<T> high) {
  const auto loop = skip ? (relu ? normalise_rows<T, true, true> : normalise_rows<T, true, false>)
                         : (relu ? normalise_rows<T, false, true> : normalise_rows<T, false, false>);
  loop(x, skip, y, rows, width, mean, scale, shift, high);
}

enum class Mask { none, by_y, by_x };

// diff_y behind the ReLU, given x - mean.
template <Mask mask, class T, class... Rest>
inline Vector<T> gradient(const T* diff_y, const ReluMask<T>& relu, Vector<T> centred, int64_t at, int64_t i,
                          Rest... rest) {
  const auto g = load(diff_y + at, rest...);
  const auto inside = [&](Vector<T> y) {
    const auto zero = splat<Vector<T>>(0), high = splat<Vector<T>>(relu.high);
    return ((y > zero) & (y < high)) ? g : zero;
  };
  if constexpr (mask == Mask::by_y) return inside(load(relu.y + at, rest...));
  if constexpr (mask == Mask::by_x)
    return inside(centred * load(relu.scale + i, rest...) + load(relu.shift + i, rest...));
  return g;
}

template <class T, Mask mask, bool keep>
void gradient_sums(const T* x, const T* diff_y, const ReluMask<T>& relu, T* diff_skip, int64_t rows,
                   int64_t width, const Real<T>* mean, Real<T>* sum, Real<T>* products) {
  for_columns<T>(rows, width, [=](int64_t first, auto count, int64_t i, auto... rest) {
    const auto m = load(mean + i, rest...);
    auto s = load(sum + i, rest...), p = load(products + i, rest...);
    for (int64_t r = first; r < first + count; ++r) {
      const int64_t at = r * width + i;
      const auto d = load(x + at, rest...) - m, g = gradient<mask>(diff_y, relu, d, at, i, rest...);
      if constexpr (keep) store_exact(diff_skip + at, g, rest...);
      s = s + g;
      p = p + g * d;
    }
    store(sum + i, s, rest...);
    store(products + i, p, rest...);
  });
}

template <class T>
void norm_gradient_sums(const T* x, const T* diff_y, const ReluMask<T>& relu, T* diff_skip, int64_t rows,
                        int64_t width, const Real<T>* mean, Real<T>* sum, Real<T>* products) {
  const auto loop =
      relu.y       ? (diff_skip ? gradient_sums<T, Mask::by_y, true> : gradient_sums<T, Mask::by_y, false>)
      : relu.scale ? gradient_sums<T, Mask::by_x, false>
                   : gradient_sums<T, Mask::none, false>;
  loop(x, diff_y, relu, diff_skip, rows, width, mean, sum, products);
}

template <class T, Mask mask>
void gradient_rows(const T* x, const T* diff_y, const ReluMask<T>& relu, T* diff_x, int64_t rows,
                   int64_t width, const Real<T>* mean, const Real<T>* offset, const Real<T>* slope,
                   const Real<T>* scale) {
  for (int64_t first = 0; first < rows * width; first += width) {
    const auto column = [=](int64_t i, auto... rest) {
      const auto d = load(x + first + i, rest...) - load(mean + i, rest...);
      const auto g = gradient<mask>(diff_y, relu, d, first + i, i, rest...);
      store(diff_x + first + i,
            (g - load(offset + i, rest...) - d * load(slope + i, rest...)) * load(scale + i, rest...),
            rest...);
    };
    for_vectors<T>(width, column, column);
  }
}

template <class T>
void norm_gradient(const T* x, const T* diff_y, const ReluMask<T>& relu, T* diff_x, int64_t rows,
                   int64_t width, const Real<T>* mean, const Real<T>* offset, const Real<T>* slope,
                   const Real<T>* scale) {
  const auto loop = relu.y       ? gradient_rows<T, Mask::by_y>
                    : relu.scale ? gradient_rows<T, Mask::by_x>
                                 : gradient_rows<T, Mask::none>;
  loop(x, diff_y, relu, diff_x, rows, width, mean, offset, slope, scale);
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
