// Convolution of u8 codes with s8 weights. Sums stay in registers until they are complete, are exact on every
// instruction set, and leave as codes: the requantisation of grid.h, lane by lane.
#include <utility>

#if defined(__GNUC__) && \
    !defined(__clang__)  // g++ 12 warns of operands that its own intrinsics leave undefined
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "vector.h"

namespace stairgrad::simd::STAIRGRAD_ISA {
namespace {

#ifdef __SSE4_1__

template <int value>
using Constant = std::integral_constant<int, value>;

/// Calls body(Constant<0>), ..., body(Constant<n - 1>).
template <int n, class Body>
[[gnu::always_inline]] inline void unrolled(Body body) {
  [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
    (body(Constant<i>{}), ...);
  }
  (std::make_integer_sequence<int, n>{});
}

// --- what the instruction sets call differently ---

constexpr int64_t lanes_s32 = vector_bytes / 4;

#if defined(__AVX512F__)
using Bytes = __m512i;
inline Bytes load_bytes(const void* p) { return _mm512_loadu_si512(p); }
inline Bytes load_bytes(const uint8_t* p, int64_t n) {
  return _mm512_maskz_loadu_epi8(n >= 64 ? ~0ull : (1ull << n) - 1, p);
}
inline Bytes broadcast(int32_t quad) { return _mm512_set1_epi32(quad); }
inline Bytes unpack_low_8(Bytes a, Bytes b) { return _mm512_unpacklo_epi8(a, b); }
inline Bytes unpack_high_8(Bytes a, Bytes b) { return _mm512_unpackhi_epi8(a, b); }
inline Bytes unpack_low_16(Bytes a, Bytes b) { return _mm512_unpacklo_epi16(a, b); }
inline Bytes unpack_high_16(Bytes a, Bytes b) { return _mm512_unpackhi_epi16(a, b); }
inline Bytes pack_32(Bytes a, Bytes b) { return _mm512_packs_epi32(a, b); }
inline Bytes pack_16(Bytes a, Bytes b) { return _mm512_packus_epi16(a, b); }
inline F32 to_float(Bytes sums) { return reinterpret_cast<F32>(_mm512_cvtepi32_ps(sums)); }
inline Bytes rounded(F32 t) { return _mm512_cvtps_epi32(reinterpret_cast<__m512>(t)); }
inline F32 multiply_add(F32 a, F32 b, F32 c) {
  return reinterpret_cast<F32>(
      _mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
}
inline F32 limited(F32 t, F32 low, F32 high) {
  return reinterpret_cast<F32>(
      _mm512_min_ps(_mm512_max_ps(reinterpret_cast<__m512>(t), reinterpret_cast<__m512>(low)),
                    reinterpret_cast<__m512>(high)));
}
inline __mmask16 first_lanes(int64_t n) {
  return n >= 16 ? __mmask16{0xffff} : static_cast<__mmask16>((1u << n) - 1);
}
inline void store_codes(uint8_t* p, Bytes codes, int64_t n) {
  const __m128i narrow = _mm512_cvtepi32_epi8(codes);
  if (n >= 16)
    _mm_storeu_si128(reinterpret_cast<__m128i_u*>(p), narrow);
  else
    _mm_mask_storeu_epi8(p, first_lanes(n), narrow);
}
inline Bytes load_codes(const uint8_t* p, int64_t n) {
  return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first_lanes(n), p));
}
/// After packing four vectors: lane by lane behind each other again.
inline Bytes in_order(Bytes packed) {
  return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
                                  packed);
}
inline void store_bytes(uint8_t* p, Bytes codes, int64_t n) {
  if (n >= 64)
    _mm512_storeu_si512(p, codes);
  else
    _mm512_mask_storeu_epi8(p, (1ull << n) - 1, codes);
}
#else
#if defined(__AVX2__)
using Bytes = __m256i;
inline Bytes load_bytes(const void* p) { return _mm256_loadu_si256(static_cast<const Bytes*>(p)); }
inline Bytes broadcast(int32_t quad) { return _mm256_set1_epi32(quad); }
inline Bytes unpack_low_8(Bytes a, Bytes b) { return _mm256_unpacklo_epi8(a, b); }
inline Bytes unpack_high_8(Bytes a, Bytes b) { return _mm256_unpackhi_epi8(a, b); }
inline Bytes unpack_low_16(Bytes a, Bytes b) { return _mm256_unpacklo_epi16(a, b); }
inline Bytes unpack_high_16(Bytes a, Bytes b) { return _mm256_unpackhi_epi16(a, b); }
inline Bytes pack_32(Bytes a, Bytes b) { return _mm256_packs_epi32(a, b); }
inline Bytes pack_16(Bytes a, Bytes b) { return _mm256_packus_epi16(a, b); }
inline F32 to_float(Bytes sums) { return reinterpret_cast<F32>(_mm256_cvtepi32_ps(sums)); }
inline Bytes rounded(F32 t) { return _mm256_cvtps_epi32(reinterpret_cast<__m256>(t)); }
inline F32 multiply_add(F32 a, F32 b, F32 c) {
  return reinterpret_cast<F32>(
      _mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
}
inline F32 limited(F32 t, F32 low, F32 high) {
  return reinterpret_cast<F32>(
      _mm256_min_ps(_mm256_max_ps(reinterpret_cast<__m256>(t), reinterpret_cast<__m256>(low)),
                    reinterpret_cast<__m256>(high)));
}
#else
using Bytes = __m128i;
inline Bytes load_bytes(const void* p) { return _mm_loadu_si128(static_cast<const Bytes*>(p)); }
inline Bytes broadcast(int32_t quad) { return _mm_set1_epi32(quad); }
inline Bytes unpack_low_8(Bytes a, Bytes b) { return _mm_unpacklo_epi8(a, b); }
inline Bytes unpack_high_8(Bytes a, Bytes b) { return _mm_unpackhi_epi8(a, b); }
inline Bytes unpack_low_16(Bytes a, Bytes b) { return _mm_unpacklo_epi16(a, b); }
inline Bytes unpack_high_16(Bytes a, Bytes b) { return _mm_unpackhi_epi16(a, b); }
inline Bytes pack_32(Bytes a, Bytes b) { return _mm_packs_epi32(a, b); }
inline Bytes pack_16(Bytes a, Bytes b) { return _mm_packus_epi16(a, b); }
inline F32 to_float(Bytes sums) { return reinterpret_cast<F32>(_mm_cvtepi32_ps(sums)); }
inline Bytes rounded(F32 t) { return _mm_cvtps_epi32(reinterpret_cast<__m128>(t)); }
inline Bytes in_order(Bytes packed) { return packed; }
inline F32 multiply_add(F32 a, F32 b, F32 c) {  // one rounding, as everywhere
  for (int i = 0; i < lanes_s32; ++i) a[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return a;
}
inline F32 limited(F32 t, F32 low, F32 high) {
  return reinterpret_cast<F32>(
      _mm_min_ps(_mm_max_ps(reinterpret_cast<__m128>(t), reinterpret_cast<__m128>(low)),
                 reinterpret_cast<__m128>(high)));
}
#endif
inline Bytes load_bytes(const uint8_t* p, int64_t n) {
  if (n >= vector_bytes) return load_bytes(p);
  uint8_t buffer[vector_bytes] = {};
  __builtin_memcpy(buffer, p, static_cast<size_t>(n));
  return load_bytes(buffer);
}
inline void store_bytes(uint8_t* p, Bytes codes, int64_t n) {
  __builtin_memcpy(p, &codes, static_cast<size_t>(n < vector_bytes ? n : vector_bytes));
}
inline void store_codes(uint8_t* p, Bytes codes, int64_t n) {
  const S32 values = reinterpret_cast<S32>(codes);
  for (int64_t i = 0; i < (n < lanes_s32 ? n : lanes_s32); ++i) p[i] = static_cast<uint8_t>(values[i]);
}
inline Bytes load_codes(const uint8_t* p, int64_t n) {
  S32 values{};
  for (int64_t i = 0; i < (n < lanes_s32 ? n : lanes_s32); ++i) values[i] = p[i];
  return reinterpret_cast<Bytes>(values);
}
#endif

/// sums + dot products of four u8 codes with four s8 weights, lane by lane.
#ifdef __AVX512VNNI__
using Codes = Bytes;
using Weights = Bytes;
inline Codes codes_of(Bytes quads) { return quads; }
inline Weights weights_of(Bytes quads) { return quads; }
inline Bytes dot(Bytes sums, Codes x, Weights w) { return _mm512_dpbusd_epi32(sums, x, w); }
#else
// Products of 16-bit numbers by pairs: unlike those of bytes, they cannot saturate.
struct Codes {
  Bytes even, odd;
};
using Weights = Codes;
#if defined(__AVX512BW__)
inline Codes codes_of(Bytes q) {
  return {_mm512_and_si512(q, _mm512_set1_epi16(255)), _mm512_srli_epi16(q, 8)};
}
inline Weights weights_of(Bytes q) {
  return {_mm512_srai_epi16(_mm512_slli_epi16(q, 8), 8), _mm512_srai_epi16(q, 8)};
}
inline Bytes dot(Bytes sums, Codes x, Weights w) {
  sums = _mm512_add_epi32(sums, _mm512_madd_epi16(x.even, w.even));
  return _mm512_add_epi32(sums, _mm512_madd_epi16(x.odd, w.odd));
}
#elif defined(__AVX2__)
inline Codes codes_of(Bytes q) {
  return {_mm256_and_si256(q, _mm256_set1_epi16(255)), _mm256_srli_epi16(q, 8)};
}
inline Weights weights_of(Bytes q) {
  return {_mm256_srai_epi16(_mm256_slli_epi16(q, 8), 8), _mm256_srai_epi16(q, 8)};
}
inline Bytes dot(Bytes sums, Codes x, Weights w) {
  sums = _mm256_add_epi32(sums, _mm256_madd_epi16(x.even, w.even));
  return _mm256_add_epi32(sums, _mm256_madd_epi16(x.odd, w.odd));
}
#else
inline Codes codes_of(Bytes q) { return {_mm_and_si128(q, _mm_set1_epi16(255)), _mm_srli_epi16(q, 8)}; }
inline Weights weights_of(Bytes q) { return {_mm_srai_epi16(_mm_slli_epi16(q, 8), 8), _mm_srai_epi16(q, 8)}; }
inline Bytes dot(Bytes sums, Codes x, Weights w) {
  sums = _mm_add_epi32(sums, _mm_madd_epi16(x.even, w.even));
  return _mm_add_epi32(sums, _mm_madd_epi16(x.odd, w.odd));
}
#endif
#endif

/// Sums of `vectors` x `results` fill the registers, beside the weights of a step and one quad of codes.
#if defined(__AVX512VNNI__)
constexpr int most_vectors = 4;
constexpr int most_results(int vectors) { return vectors == 4 ? 6 : 8; }
#elif defined(__AVX512F__)
constexpr int most_vectors = 2;
constexpr int most_results(int) { return 8; }
#else
constexpr int most_vectors = 2;
constexpr int most_results(int) { return 4; }
#endif

// --- results ---

/// The result of a sum before its limits and rounding.
[[gnu::always_inline]] inline F32 requantised(const IntegerResult& r, Bytes sum, int64_t channel) {
  return (to_float(sum) + load(r.b + channel)) * load(r.m + channel);
}

enum class Kind { codes, codes_with_skip, floats };

/// The result before its limits and rounding, with the skip added.
template <Kind kind>
[[gnu::always_inline]] inline F32 with_skip(const IntegerResult& r, F32 t, int64_t at, int64_t rest) {
  if (kind == Kind::codes || (kind == Kind::floats && !r.skip && !r.float_skip)) return t;
  if (kind == Kind::floats && r.float_skip)
    return t + (rest < lanes_s32 ? load(r.float_skip + at, rest) : load(r.float_skip + at));
  return multiply_add(to_float(load_codes(r.skip + at, rest)), splat<F32>(r.skip_ratio), t);
}

/// Stores `vectors` of channels of `count` results, the first one at `offset`.
template <Kind kind, int vectors, int results>
[[gnu::always_inline]] inline void finish(const IntegerResult& r, Bytes (&sums)[results][vectors],
                                          int64_t count, int64_t offset, int64_t channels) {
  const F32 low = splat<F32>(r.low), high = splat<F32>(r.high);
  unrolled<results>([&](auto p) __attribute__((always_inline)) {
    if (p >= count) return;
    const int64_t result = offset + p * r.pitch;
    unrolled<vectors>([&](auto v) __attribute__((always_inline)) {
      constexpr int64_t channel = v * lanes_s32;
      const int64_t at = result + channel, rest = channels - channel;
      const F32 t = limited(with_skip<kind>(r, requantised(r, sums[p][v], channel), at, rest), low, high);
      if constexpr (kind == Kind::floats) {
        if (rest < lanes_s32)
          store(r.floats + at, t, rest);
        else
          store(r.floats + at, t);
      } else {
        sums[p][v] = rounded(t);
        if constexpr (vectors < 4) store_codes(r.codes + at, sums[p][v], rest);
      }
    });
    if constexpr (kind != Kind::floats && vectors == 4)
      store_bytes(r.codes + result,
                  in_order(pack_16(pack_32(sums[p][0], sums[p][1]), pack_32(sums[p][2], sums[p][3]))),
                  channels);
  });
}

// --- convolution ---

template <int vectors, int results>
[[gnu::always_inline]] inline void sum_up(const IntegerConvBlock& c, const uint8_t* const* pixels,
                                          Bytes (&sums)[results][vectors]) {
  unrolled<results>([&](auto p) __attribute__((always_inline)) {
    unrolled<vectors>([&](auto v) __attribute__((always_inline)) { sums[p][v] = Bytes{}; });
  });
  const int8_t* w = c.weights;
  for (int64_t run = 0; run < c.run_count; ++run) {
    const uint8_t* x[results];
    unrolled<results>([&](auto p) __attribute__((always_inline)) { x[p] = pixels[p] + c.runs[run]; });
    for (int64_t i = 0; i < 4 * c.quads; i += 4, w += vectors * vector_bytes) {
      Weights weights[vectors];
      unrolled<vectors>([&](auto v) __attribute__((always_inline)) {
        weights[v] = weights_of(load_bytes(static_cast<const void*>(w + v * vector_bytes)));
      });
      unrolled<results>([&](auto p) __attribute__((always_inline)) {
        int32_t quad;
        __builtin_memcpy(&quad, x[p] + i, sizeof quad);
        const Codes codes = codes_of(broadcast(quad));
        unrolled<vectors>([&](auto v) __attribute__((always_inline)) {
          sums[p][v] = dot(sums[p][v], codes, weights[v]);
        });
      });
    }
  }
}

/// Results that lie behind each other, some of them perhaps in the next row or image.
template <Kind kind, int vectors, int results>
[[gnu::noinline]] void dense_tile(const IntegerConvBlock& c, const IntegerResult& given,
                                  const uint8_t* const* pixels, int64_t count, int64_t offset) {
  Bytes sums[results][vectors];
  sum_up<vectors, results>(c, pixels, sums);
  const IntegerResult r = given;  // codes that are stored could be parts of `given`, but not of this
  finish<kind>(r, sums, count, offset, c.channels);
}

template <Kind kind, int vectors>
void dense_results(const IntegerConvBlock& c, const IntegerResult& r, int64_t first, int64_t last) {
  constexpr int most = most_results(vectors);
  int64_t x = first % c.width, y = first / c.width % c.height;
  const uint8_t* image = c.src + first / c.width / c.height * c.image;
  const uint8_t* pixel = image + y * c.row + x * c.column;
  for (int64_t i = first; i < last; i += most) {
    const int64_t count = last - i < most ? last - i : most;
    const uint8_t* pixels[most];
    for (int64_t p = 0; p < most; ++p) {
      pixels[p] = pixel;  // beyond `count` computed, but not stored
      if (p + 1 >= count && i + most >= last) continue;
      pixel += c.column;
      if (++x < c.width) continue;
      x = 0;
      if (++y == c.height) {
        y = 0;
        image += c.image;
      }
      pixel = image + y * c.row;
    }
    const int64_t offset = i * r.pitch;
    if (count > most / 2)
      dense_tile<kind, vectors, most>(c, r, pixels, count, offset);
    else if (count > 1)
      dense_tile<kind, vectors, most / 2>(c, r, pixels, count, offset);
    else
      dense_tile<kind, vectors, 1>(c, r, pixels, count, offset);
  }
}

template <Kind kind>
void dense_of_kind(const IntegerConvBlock& c, const IntegerResult& r, int64_t first, int64_t last) {
  unrolled<most_vectors>([&](auto v) {
    if (c.vectors == v + 1) dense_results<kind, v + 1>(c, r, first, last);
  });
}

void dense(const IntegerConvBlock& c, const IntegerResult& r, int64_t first, int64_t last) {
  if (!r.codes) return dense_of_kind<Kind::floats>(c, r, first, last);
  if (r.skip) return dense_of_kind<Kind::codes_with_skip>(c, r, first, last);
  dense_of_kind<Kind::codes>(c, r, first, last);
}

// --- depthwise convolution ---

/// Four rows of a pixel's channels, the bytes of a channel beside each other: quarter q holds channel
/// 16 i + 4 q + k in lane 4 i + k.
[[gnu::always_inline]] inline void interleave(Bytes a, Bytes b, Bytes c, Bytes d, Codes (&quarters)[4]) {
  const Bytes low = unpack_low_8(a, b), high = unpack_high_8(a, b);
  const Bytes low2 = unpack_low_8(c, d), high2 = unpack_high_8(c, d);
  quarters[0] = codes_of(unpack_low_16(low, low2));
  quarters[1] = codes_of(unpack_high_16(low, low2));
  quarters[2] = codes_of(unpack_low_16(high, high2));
  quarters[3] = codes_of(unpack_high_16(high, high2));
}

template <int taps>
constexpr int row_groups = (taps + 3) / 4;

template <int taps>
[[gnu::always_inline]] inline void load_column(const uint8_t* pixel, int64_t row, int64_t channels,
                                               Codes (&column)[row_groups<taps>][4]) {
  unrolled<row_groups<taps>>([&](auto g) __attribute__((always_inline)) {
    Bytes rows[4] = {};
    unrolled<4>([&](auto k) __attribute__((always_inline)) {
      if constexpr (4 * g + k < taps) rows[k] = load_bytes(pixel + (4 * g + k) * row, channels);
    });
    interleave(rows[0], rows[1], rows[2], rows[3], column[g]);
  });
}

/// Sums of the four quarters to results: back in the order of the channels where they are codes.
[[gnu::always_inline]] inline void finish_quarters(const IntegerResult& r, const Bytes (&sums)[4],
                                                   int64_t offset, int64_t channels) {
  const F32 low = splat<F32>(r.low), high = splat<F32>(r.high);
  if (r.codes && !r.skip) {
    Bytes codes[4];
    unrolled<4>([&](auto q) __attribute__((always_inline)) {
      codes[q] = rounded(limited(requantised(r, sums[q], q * lanes_s32), low, high));
    });
    return store_bytes(r.codes + offset, pack_16(pack_32(codes[0], codes[1]), pack_32(codes[2], codes[3])),
                       channels);
  }
  F32 t[4];
  unrolled<4>([&](auto q) __attribute__((always_inline)) { t[q] = requantised(r, sums[q], q * lanes_s32); });
  for (int64_t c = 0; c < channels; ++c) {
    const int64_t lane = c / 16 * 4 + c % 4, at = offset + c;
    float value = t[c % 16 / 4][lane];
    if (r.skip) value = __builtin_fmaf(r.skip[at], r.skip_ratio, value);
    if (r.float_skip) value = value + r.float_skip[at];
    value = value > r.low ? (value < r.high ? value : r.high) : r.low;
    if (r.codes)
      r.codes[at] = static_cast<uint8_t>(static_cast<int>(value + 0x1.8p23f - 0x1.8p23f));
    else
      r.floats[at] = value;
  }
}

template <int taps, int stride>
void depthwise_row(const IntegerDepthwiseRow& row, const IntegerResult& result) {
  const IntegerDepthwiseRow d = row;  // codes that are stored could be parts of `row`, but not of this
  const IntegerResult r = result;
  constexpr int groups = row_groups<taps>;
  const auto weights = [&](int column, int group, int quarter) {
    const int64_t at = ((column * groups + group) * 4 + quarter) * vector_bytes;
    return weights_of(load_bytes(static_cast<const void*>(d.weights + at)));
  };
  Codes columns[taps][groups][4];  // those under the result, of which the last `stride` are new
  unrolled<taps>([&](auto k) __attribute__((always_inline)) {
    if constexpr (k + stride < taps)
      load_column<taps>(d.src + k * d.column, d.row, d.channels, columns[k + stride]);
  });
  const uint8_t* next = d.src + (taps - stride) * d.column;
  for (int64_t x = 0; x < d.count; ++x) {
    unrolled<taps>([&](auto k) __attribute__((always_inline)) {
      if constexpr (k + stride < taps) {
        __builtin_memcpy(columns[k], columns[k + stride], sizeof columns[k]);
      } else {
        load_column<taps>(next, d.row, d.channels, columns[k]);
        next += d.column;
      }
    });
    Bytes sums[4] = {};
    unrolled<taps>([&](auto k) __attribute__((always_inline)) {
      unrolled<groups>([&](auto g) __attribute__((always_inline)) {
        unrolled<4>([&](auto q) __attribute__((always_inline)) {
          sums[q] = dot(sums[q], columns[k][g][q], weights(k, g, q));
        });
      });
    });
    finish_quarters(r, sums, x * r.pitch, d.channels);
  }
}

void depthwise(const IntegerDepthwiseRow& d, const IntegerResult& r) {
  if (d.taps == 3) return d.stride == 1 ? depthwise_row<3, 1>(d, r) : depthwise_row<3, 2>(d, r);
  return d.stride == 1 ? depthwise_row<5, 1>(d, r) : depthwise_row<5, 2>(d, r);
}

#endif

}  // namespace

void enter_integer_conv(IntegerTable& table);
void enter_integer_conv([[maybe_unused]] IntegerTable& table) {
#ifdef __SSE4_1__
  table.conv = {lanes_s32, most_vectors, dense, depthwise};
#endif
}

}  // namespace stairgrad::simd::STAIRGRAD_ISA
