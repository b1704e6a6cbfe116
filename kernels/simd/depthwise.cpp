// Depthwise convolution: a row of results, and the gradient of the taps from a row. A vector of channels
// walks along the row with its taps, or their gradients, in registers; results stay open from their first
// column of taps to their last, so that a pixel is loaded once.
#include <utility>

#include "vector.h"

namespace stairgrad::simd::STAIRGRAD_ISA {
namespace {

template <int value>
using Constant = std::integral_constant<int, value>;

/// Calls body(Constant<0>), ..., body(Constant<n - 1>).
template <int n, class Body>
inline void unrolled(Body body) {
  [&]<int... i>(std::integer_sequence<int, i...>) { (body(Constant<i>{}), ...); }
  (std::make_integer_sequence<int, n>{});
}

/// Calls body(Constant<n>) for an n in 1..most.
template <int most, class Body>
inline void with_constant(int64_t n, Body body) {
  unrolled<most>([&](auto i) {
    if (n == i + 1) body(Constant<i + 1>{});
  });
}

/// Calls body(rows, columns, stride) with the constants of `row`.
template <class Body>
inline void with_kernel(const DepthwiseRow& row, Body body) {
  with_constant<2>(row.stride, [&](auto stride) {
    with_constant<5>(row.columns, [&](auto columns) {
      if constexpr (columns == 3 || columns == 5 || (columns < 3 && stride == 1))
        with_constant<(columns > 3 ? 5 : 3)>(row.rows, [&](auto rows) { body(rows, columns, stride); });
    });
  });
}

/// Results that are open at once.
template <int columns, int stride>
constexpr int open_results = (columns + stride - 1) / stride;

/// Calls enter(x) where result x opens, pixel(offset, q) for the `stride` pixels of src from there on that
/// are not padding, and leave(x) when the result is complete. Tap q + age * stride of result x - age lies on
/// the pixel.
template <int columns, int stride, class Enter, class Pixel, class Leave>
inline void walk(const DepthwiseRow& row, Enter enter, Pixel pixel, Leave leave) {
  constexpr int open = open_results<columns, stride>;
  const int64_t c = row.pitch, count = row.count, end = row.width * c;
  int64_t offset = row.first * c;
  for (int64_t x = 0; x < count + open - 1; ++x) {
    enter(x);
    unrolled<stride>([&](auto q) {
      if (static_cast<uint64_t>(offset) < static_cast<uint64_t>(end)) pixel(offset, q);
      offset += c;
    });
    if (x >= open - 1) leave(x - open + 1);
  }
}

/// Makes room for a new result, zero so far, in front.
template <int open>
inline void age(F32 (&results)[open]) {
  unrolled<open - 1>([&](auto k) { results[open - 1 - k] = results[open - 2 - k]; });
  results[0] = F32{};
}

/// The channels that fill a vector of memory, as floats. Two numbers of bf16 share a lane: to take them apart
/// by shift and mask is cheaper than to spread them over two vectors.
template <class T>
constexpr int parts = sizeof(float) / sizeof(T);

inline void load_channels(const float* p, F32 (&v)[1]) { v[0] = load(p); }
inline void load_channels(const bf16* p, F32 (&v)[2]) {
  U32 u;
  __builtin_memcpy(&u, p, sizeof u);
  v[0] = reinterpret_cast<F32>(u << 16);
  v[1] = reinterpret_cast<F32>(u & 0xffff0000u);
}
inline void store_channels(float* p, const F32 (&v)[1]) { store(p, v[0]); }
inline void store_channels(bf16* p, const F32 (&v)[2]) {
  const U32 u = rounded_to_bf16(v[0]) >> 16 | (rounded_to_bf16(v[1]) & 0xffff0000u);
  __builtin_memcpy(static_cast<void*>(p), &u, sizeof u);
}

template <class T, int rows, int columns, int stride>
[[gnu::flatten]] void forward(const T* src, const T* weights, T* dst, const DepthwiseRow& row) {
  constexpr int open = open_results<columns, stride>;
  constexpr int64_t block = lanes<T> * parts<T>;
  const int64_t c = row.pitch, line = row.width * c, step = row.step * c, last = row.channels - block;
  for (int64_t next = 0; next < row.channels; next += block) {
    const int64_t i = next < last ? next : last;  // the last block may reach back
    F32 taps[rows][columns][parts<T>], sums[parts<T>][open] = {};
    unrolled<rows>([&](auto y) {
      unrolled<columns>([&](auto k) { load_channels(weights + (y * columns + k) * c + i, taps[y][k]); });
    });
    walk<columns, stride>(
        row, [&](int64_t) { unrolled<parts<T>>([&](auto p) { age(sums[p]); }); },
        [&](int64_t offset, auto q) {
          const T* pixel = src + offset + i;
          unrolled<stride>([&](auto y) { __builtin_prefetch(pixel + (rows + y) * line); });
          unrolled<rows>([&](auto y) {
            F32 v[parts<T>];
            load_channels(pixel + y * line, v);
            unrolled<open>([&](auto a) {
              constexpr int k = q + a * stride;
              if constexpr (k < columns)
                unrolled<parts<T>>(
                    [&](auto p) { sums[p][a] = add_product<T>(sums[p][a], v[p], taps[y][k][p]); });
            });
          });
        },
        [&](int64_t x) {
          T* to = dst + x * step + i;
          __builtin_prefetch(to + row.count * step, 1);
          F32 v[parts<T>];
          unrolled<parts<T>>([&](auto p) { v[p] = sums[p][open - 1]; });
          store_channels(to, v);
        });
  }
}

template <class T, int rows, int columns, int stride>
[[gnu::flatten]] void gradient(const T* src, const T* diff_dst, float* sums, const DepthwiseRow& row) {
  constexpr int open = open_results<columns, stride>;
  const int64_t c = row.pitch, line = row.width * c, count = row.count, last = row.channels - lanes<T>;
  S32 lane;
  for (int k = 0; k < lanes<T>; ++k) lane[k] = k;
  for (int64_t next = 0; next < row.channels; next += lanes<T>) {
    const int64_t i = next < last ? next : last;
    const S32 fresh = lane >= static_cast<int32_t>(next - i);  // not lanes of the vector before
    F32 taps[rows][columns];
    unrolled<rows>([&](auto y) {
      unrolled<columns>([&](auto k) { taps[y][k] = load(sums + (y * columns + k) * c + i); });
    });
    F32 g[open] = {};
    walk<columns, stride>(
        row,
        [&](int64_t x) {
          age(g);
          if (x >= count) return;
          const T* from = diff_dst + x * c + i;
          __builtin_prefetch(from + count * c);
          g[0] = reinterpret_cast<F32>(reinterpret_cast<S32>(load(from)) & fresh);
        },
        [&](int64_t offset, auto q) {
          const T* pixel = src + offset + i;
          unrolled<stride>([&](auto y) { __builtin_prefetch(pixel + (rows + y) * line); });
          unrolled<rows>([&](auto y) {
            const F32 v = load(pixel + y * line);
            unrolled<open>([&](auto a) {
              constexpr int k = q + a * stride;
              if constexpr (k < columns) taps[y][k] = add_product<T>(taps[y][k], v, g[a]);
            });
          });
        },
        [](int64_t) {});
    unrolled<rows>([&](auto y) {
      unrolled<columns>([&](auto k) { store(sums + (y * columns + k) * c + i, taps[y][k]); });
    });
  }
}

template <class T>
void depthwise(const T* src, const T* weights, T* dst, const DepthwiseRow& row) {
  with_kernel(row, [&](auto rows, auto columns, auto stride) {
    forward<T, rows, columns, stride>(src, weights, dst, row);
  });
}

template <class T>
void depthwise_gradient(const T* src, const T* diff_dst, float* sums, const DepthwiseRow& row) {
  with_kernel(row, [&](auto rows, auto columns, auto stride) {
    if constexpr (columns >= 3) gradient<T, rows, columns, stride>(src, diff_dst, sums, row);
  });
}

template <class T>
void enter(DepthwiseLoops<T>& loops) {
  loops.forward = depthwise<T>;
  loops.gradient = depthwise_gradient<T>;
}

}  // namespace

void enter_depthwise(Table& table);
void enter_depthwise(Table& table) {
  enter(table.depthwise_f32);
  enter(table.depthwise_b16);
}

}  // namespace stairgrad::simd::STAIRGRAD_ISA
