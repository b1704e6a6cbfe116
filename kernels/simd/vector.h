// Vectors of the instruction set that a source is compiled for. Only the sources of loops include this file:
// everything is local to them, because the linker must never pick an AVX-512 copy for the baseline.
//
// A loop is written once for T in {float, bf16, double}: load() gives a Vector<T>, on which arithmetic,
// comparisons and ?: work lane by lane. A vector of doubles has one lane: f64 exists for gradient checks.
#pragma once

#ifdef __SSE4_1__
#include <immintrin.h>
#endif

#include "simd.h"

namespace stairgrad::simd::STAIRGRAD_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

typedef float F32 __attribute__((vector_size(vector_bytes)));
typedef int32_t S32 __attribute__((vector_size(vector_bytes)));
typedef uint32_t U32 __attribute__((vector_size(vector_bytes)));
typedef uint16_t U16 __attribute__((vector_size(vector_bytes / 2)));

template <class T>
using Vector = std::conditional_t<std::is_same_v<T, double>, double, F32>;

/// Lanes of a Vector<T>.
template <class T>
constexpr int64_t lanes = std::is_same_v<T, double> ? 1 : vector_bytes / 4;

inline F32 load(const float* p) {
  F32 v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
// One instruction to widen; g++ 12 makes four of __builtin_convertvector.
inline F32 load(const bf16* p) {
#if defined(__AVX512F__)
  const __m512i wide =
      _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i_u*>(p)));
#elif defined(__AVX2__)
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i_u*>(p)));
#elif defined(__SSE4_1__)
  const __m128i wide = _mm_cvtepu16_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i_u*>(p)));
#else
  U16 half;
  __builtin_memcpy(&half, p, sizeof half);
  const U32 wide = __builtin_convertvector(half, U32);
#endif
  return reinterpret_cast<F32>(reinterpret_cast<U32>(wide) << 16);
}
inline double load(const double* p) { return *p; }
inline float widen(float x) { return x; }
inline float widen(bf16 x) { return __builtin_bit_cast(float, static_cast<uint32_t>(x.bits) << 16); }
inline double widen(double x) { return x; }

inline void store(float* p, F32 v) { __builtin_memcpy(p, &v, sizeof v); }
/// The bits of bf16(float), lane by lane, above 16 bits to ignore.
inline U32 rounded_to_bf16(F32 v) {
  const U32 u = reinterpret_cast<U32>(v);
  return v == v ? u + (0x7fffu + ((u >> 16) & 1u)) : u | 0x400000u;
}
inline void store(bf16* p, F32 v) {
  const U16 half = __builtin_convertvector(rounded_to_bf16(v) >> 16, U16);
  __builtin_memcpy(static_cast<void*>(p), &half, sizeof half);
}
inline void store(double* p, double v) { *p = v; }

/// The first n lanes of v, which are numbers of the type already: nothing to round.
inline void store_exact(bf16* p, F32 v, int64_t n = lanes<bf16>) {
  const U16 half = __builtin_convertvector(reinterpret_cast<U32>(v) >> 16, U16);
  __builtin_memcpy(static_cast<void*>(p), &half, static_cast<size_t>(n) * sizeof(bf16));
}
inline void store_exact(float* p, F32 v, int64_t n = lanes<float>) {
  __builtin_memcpy(p, &v, static_cast<size_t>(n) * sizeof(float));
}
inline void store_exact(double* p, double v, int64_t = 1) { *p = v; }

/// The first n < lanes elements; the other lanes are zero.
template <class T>
inline Vector<T> load(const T* p, int64_t n) {
  unsigned char buffer[vector_bytes] = {};
  __builtin_memcpy(buffer, p, static_cast<size_t>(n) * sizeof(T));
  return load(reinterpret_cast<const T*>(buffer));
}
template <class T>
inline void store(T* p, Vector<T> v, int64_t n) {
  unsigned char buffer[vector_bytes];
  store(reinterpret_cast<T*>(buffer), v);
  __builtin_memcpy(static_cast<void*>(p), buffer, static_cast<size_t>(n) * sizeof(T));
}

template <class V>
inline V splat(Real<float> value) requires(!std::is_same_v<V, double>) {
  return value - V{};
}
template <class V>
inline V splat(double value) requires(std::is_same_v<V, double>) {
  return value;
}

/// Calls f(i) for whole vectors of T and f(i, rest) for what is left of n elements.
template <class T, class Whole, class Rest>
inline void for_vectors(int64_t n, Whole whole, Rest rest) {
  int64_t i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) whole(i);
  if (i < n) rest(i, n - i);
}

/// Calls body(first row, number of rows, i[, rest]) for every vector of columns [i, i + lanes) of `width`,
/// four rows at a time: what a column gathers stays in registers meanwhile, and more rows would be at
/// addresses that differ by 4096 bytes, which processors confuse.
template <class T, class Body>
inline void for_columns(int64_t rows, int64_t width, Body body) {
  constexpr std::integral_constant<int64_t, 4> block;
  int64_t first = 0;
  const auto columns = [&](auto count) {
    const auto at = [&](int64_t i, auto... rest) { body(first, count, i, rest...); };
    for_vectors<T>(width, at, at);
  };
  for (; first + block <= rows; first += block) columns(block);
  if (first < rows) columns(rows - first);
}

/// y[i] = f(x[i]...) for n elements.
template <class T, class F, class... X>
inline void map(T* y, int64_t n, F f, const X*... x) {
  for_vectors<T>(
      n, [&](int64_t i) { store(y + i, f(load(x + i)...)); },
      [&](int64_t i, int64_t rest) { store(y + i, f(load(x + i, rest)...), rest); });
}

/// The larger and the smaller of two; NaN if one is.
template <class V>
inline V larger(V a, V b) {
  return ((b > a) | (b != b)) ? b : a;
}
template <class V>
inline V smaller(V a, V b) {
  return ((b < a) | (b != b)) ? b : a;
}

/// sum + a * b for a and b of type T. The product of two numbers of bf16 is exact in float (while it is in
/// the range of one), so that fusing the operations does not change a bit.
template <class T>
inline Vector<T> add_product(Vector<T> sum, Vector<T> a, Vector<T> b) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, bf16>)
    return reinterpret_cast<F32>(_mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b),
                                                 reinterpret_cast<__m512>(sum)));
#elif defined(__FMA__)
  if constexpr (std::is_same_v<T, bf16>)
    return reinterpret_cast<F32>(_mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b),
                                                 reinterpret_cast<__m256>(sum)));
#endif
  return sum + a * b;
}

/// f applied to each lane.
template <class F>
inline double lane_by_lane(F f, double x) {
  return f(x);
}
template <class F>
inline F32 lane_by_lane(F f, F32 x) {
  for (int i = 0; i < lanes<float>; ++i) x[i] = f(x[i]);
  return x;
}

}  // namespace
}  // namespace stairgrad::simd::STAIRGRAD_ISA
