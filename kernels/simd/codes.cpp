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

}  // namespace

void enter_codes(IntegerTable& table);
void enter_codes(IntegerTable& table) {
  table.codes = {remap, larger, add};
#ifdef __AVX512VNNI__
  if (__builtin_cpu_supports("avx512vbmi")) table.codes.remap = remap_by_permutation;
#endif
}

}  // namespace stairgrad::simd::STAIRGRAD_ISA
