// Pooling: the pixels of one window, side by side along the channels.
#include "vector.h"

namespace stairgrad::simd::STAIRGRAD_ISA {
namespace {

template <class T>
void average_window(const T* x, T* y, int64_t c, int64_t height, int64_t width, int64_t row, Real<T> scale) {
  const auto channels = [=](int64_t k, auto... rest) {
    auto sum = splat<Vector<T>>(0);
    for (int64_t i = 0; i < height; ++i)
      for (int64_t j = 0; j < width; ++j) sum = sum + load(x + i * row + j * c + k, rest...);
    store(y + k, sum * scale, rest...);
  };
  for_vectors<T>(c, channels, channels);
}

// As many positions as Vector<T> has lanes.
template <class T>
using Positions = std::conditional_t<std::is_same_v<T, double>, int32_t, S32>;

template <class T>
void max_window(const T* x, T* y, int32_t* index, int64_t c, int64_t height, int64_t width, int64_t row,
                int32_t first, int32_t step) {
  const auto channels = [=](int64_t k, int64_t count, auto... rest) {
    auto best = load(x + k, rest...);
    Positions<T> where = Positions<T>{} + first;
    for (int64_t i = 0; i < height; ++i) {
      for (int64_t j = 0; j < width; ++j) {
        const auto v = load(x + i * row + j * c + k, rest...);
        const auto larger = (v > best) | (v != v);
        best = larger ? v : best;
        where = larger ? Positions<T>{} + (first + static_cast<int32_t>(i) * step + static_cast<int32_t>(j))
                       : where;
      }
    }
    store(y + k, best, rest...);
    __builtin_memcpy(index + k, &where, static_cast<size_t>(count) * sizeof(int32_t));
  };
  for_vectors<T>(
      c, [=](int64_t k) { channels(k, lanes<T>); },
      [=](int64_t k, int64_t rest) { channels(k, rest, rest); });
}

template <class T>
void add_scaled(const T* g, Real<T>* sum, int64_t n, Real<T> scale) {
  map(
      sum, n, [scale](auto s, auto v) { return s + v * scale; }, sum, g);
}

template <class T>
void enter(Loops<T>& loops) {
  loops.average_window = average_window<T>;
  loops.max_window = max_window<T>;
  loops.add_scaled = add_scaled<T>;
}

}  // namespace

void enter_pool(Table& table);
void enter_pool(Table& table) {
  enter(table.f32);
  enter(table.b16);
  enter(table.f64);
}

}  // namespace stairgrad::simd::STAIRGRAD_ISA
