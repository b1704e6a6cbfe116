// Sums, extremes and the exponentials of softmax.
#include "functions.h"

namespace stairgrad::simd::STAIRGRAD_ISA {
namespace {

// Sums run over 32 lanes on every instruction set, in float over blocks and in double over blocks.
template <class T>
double sum(const T* x, int64_t n) {
  constexpr int64_t total = 32, vectors = total / lanes<T>, block = 64 * total;
  double result = 0;
  while (n >= total) {
    const int64_t part = n < block ? n / total * total : block;
    Vector<T> sums[vectors] = {};
    for (int64_t i = 0; i < part; i += total)
      for (int64_t v = 0; v < vectors; ++v) sums[v] += load(x + i + v * lanes<T>);
    Real<T> lane[total];
    for (int64_t v = 0; v < vectors; ++v) store(lane + v * lanes<T>, sums[v]);
    for (const Real<T> value : lane) result += static_cast<double>(value);
    x += part;
    n -= part;
  }
  for (int64_t i = 0; i < n; ++i) result += static_cast<double>(widen(x[i]));
  return result;
}

template <class T, class Pick>
inline Real<T> extreme(const T* x, int64_t n, Pick pick) {
  Real<T> result = widen(x[0]);
  int64_t i = 1;
  if (n >= lanes<T>) {
    Vector<T> best = load(x);
    for (i = lanes<T>; i + lanes<T> <= n; i += lanes<T>) best = pick(best, load(x + i));
    Real<T> lane[lanes<T>];
    store(lane, best);
    for (const Real<T> value : lane) result = pick(result, value);
  }
  for (; i < n; ++i) result = pick(result, static_cast<Real<T>>(widen(x[i])));
  return result;
}
template <class T>
Real<T> max(const T* x, int64_t n) {
  return extreme(x, n, [](auto a, auto b) { return larger(a, b); });
}
template <class T>
Real<T> min(const T* x, int64_t n) {
  return extreme(x, n, [](auto a, auto b) { return smaller(a, b); });
}

template <class T, class Fold>
inline void columns(const T* x, int64_t rows, int64_t width, Real<T>* result, Fold fold) {
  for_columns<T>(rows, width, [=](int64_t first, auto count, int64_t i, auto... rest) {
    auto column = load(result + i, rest...);
    for (int64_t r = first; r < first + count; ++r) column = fold(column, load(x + r * width + i, rest...));
    store(result + i, column, rest...);
  });
}
template <class T>
void column_sum(const T* x, int64_t rows, int64_t width, Real<T>* result) {
  columns(x, rows, width, result, [](auto a, auto b) { return a + b; });
}
template <class T>
void column_max(const T* x, int64_t rows, int64_t width, Real<T>* result) {
  columns(x, rows, width, result, [](auto a, auto b) { return larger(a, b); });
}
template <class T>
void column_min(const T* x, int64_t rows, int64_t width, Real<T>* result) {
  columns(x, rows, width, result, [](auto a, auto b) { return smaller(a, b); });
}

template <class T>
double exp_sum(const T* x, Real<T> shift, Real<T>* y, int64_t n) {
  map(
      y, n, [shift](auto v) { return exp(v - shift); }, x);
  return sum(y, n);
}

template <class T>
void enter(Loops<T>& loops) {
  loops.sum = sum<T>;
  loops.max = max<T>;
  loops.min = min<T>;
  loops.column_sum = column_sum<T>;
  loops.column_max = column_max<T>;
  loops.column_min = column_min<T>;
  loops.exp_sum = exp_sum<T>;
}

}  // namespace

void enter_reduce(Table& table);
void enter_reduce(Table& table) {
  enter(table.f32);
  enter(table.b16);
  enter(table.f64);
}

}  // namespace stairgrad::simd::STAIRGRAD_ISA
