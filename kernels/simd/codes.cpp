// Elements of codes.
#include "vector.h"

namespace stairgrad::simd::STAIRGRAD_ISA {
namespace {

void remap(const uint8_t* from, uint8_t* to, int64_t n, const uint8_t* table) {
  for (int64_t i = 0; i < n; ++i) to[i] = table[from[i]];
}

#ifdef __AVX512VNNI__
/// With the table in four registers; the highest bit of a code says which half holds its entry.
[[gnu::target("avx512vbmi")]] void remap_by_permutation(const uint8_t* from, uint8_t* to, int64_t n,
                                                        const uint8_t* table) {
  const __m512i quarter[4] = {_mm512_loadu_si512(table), _mm512_loadu_si512(table + 64),
                              _mm512_loadu_si512(table + 128), _mm512_loadu_si512(table + 192)};
  for (int64_t i = 0; i < n; i += 64) {
    const __mmask64 mask = n - i >= 64 ? ~0ull : (1ull << (n - i)) - 1;
    const __m512i x = _mm512_maskz_loadu_epi8(mask, from + i);
    const __m512i low = _mm512_permutex2var_epi8(quarter[0], x, quarter[1]);
    const __m512i high = _mm512_permutex2var_epi8(quarter[2], x, quarter[3]);
    _mm512_mask_storeu_epi8(to + i, mask, _mm512_mask_blend_epi8(_mm512_movepi8_mask(x), low, high));
  }
}
#endif

void larger(const uint8_t* from, uint8_t* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = from[i] > to[i] ? from[i] : to[i];
}

void add(const uint8_t* from, int32_t* sum, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sum[i] += from[i];
}

/// As many codes as a vector has integers.
inline S32 load_codes(const uint8_t* p) {
#if defined(__AVX512BW__)
  return reinterpret_cast<S32>(
      _mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(p))));
#elif defined(__AVX2__)
  return reinterpret_cast<S32>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i_u*>(p))));
#else
  typedef uint8_t U8 __attribute__((vector_size(vector_bytes / 4)));
  U8 codes;
  __builtin_memcpy(&codes, p, sizeof codes);
  return __builtin_convertvector(codes, S32);
#endif
}

/// Of codes: the upper half of each lane is 0, so that a sum of two 16-bit products is one, and several times
/// as fast as a product of 32 bits.
inline S32 squared(S32 x) {
#if defined(__AVX512BW__)
  const auto v = reinterpret_cast<__m512i>(x);
  return reinterpret_cast<S32>(_mm512_madd_epi16(v, v));
#elif defined(__AVX2__)
  const auto v = reinterpret_cast<__m256i>(x);
  return reinterpret_cast<S32>(_mm256_madd_epi16(v, v));
#else
  return x * x;
#endif
}

void moments(const uint8_t* from, int64_t pixels, int64_t channels, int32_t* sum, int32_t* squares) {
  constexpr int64_t width = vector_bytes / 4;
  int64_t c = 0;
  for (; c + width <= channels; c += width) {
    S32 s = {}, r = {};
    for (int64_t p = 0; p < pixels; ++p) {
      const S32 x = load_codes(from + p * channels + c);
      s += x;
      r += squared(x);
    }
    __builtin_memcpy(sum + c, &s, sizeof s);
    __builtin_memcpy(squares + c, &r, sizeof r);
  }
  for (; c < channels; ++c) {
    sum[c] = squares[c] = 0;
    for (int64_t p = 0; p < pixels; ++p) {
      const int32_t x = from[p * channels + c];
      sum[c] += x;
      squares[c] += x * x;
    }
  }
}

}  // namespace

void enter_codes(IntegerTable& table);
void enter_codes(IntegerTable& table) {
  table.codes = {remap, larger, add, moments};
#ifdef __AVX512VNNI__
  if (__builtin_cpu_supports("avx512vbmi")) table.codes.remap = remap_by_permutation;
#endif
}

}  // namespace stairgrad::simd::STAIRGRAD_ISA
