// The integer grid over ranges: grid.h in plain loops, which the compiler turns into vectors. (At -O3 its
// functions are always inlined, so that no copy for one instruction set can be linked into another.)
#include "../grid.h"

#include "simd.h"
#include "vector.h"

namespace stairgrad::simd::STAIRGRAD_ISA {
namespace {

template <class Code>
void encode(const float* x, Code* codes, int64_t n, const Grid& g, float inverse_scale) {
  const Grid grid = g;
  for (int64_t i = 0; i < n; ++i) codes[i] = static_cast<Code>(grid::encode(x[i], grid, inverse_scale));
}

template <class Code>
void decode(const Code* codes, float* y, int64_t n, const Grid& g) {
  const Grid grid = g;
  for (int64_t i = 0; i < n; ++i) y[i] = grid::decode(codes[i], grid);
}

// Through stored codes, block by block: in one expression gcc 12 folds the way through int into a truncation,
// and a code of 0 decodes to -0.
void fake_quantize(const float* x, float* y, int64_t n, const Grid& g, float inverse_scale) {
  constexpr int64_t block = 512;
  int16_t codes[block];
  for (int64_t i = 0; i < n; i += block) {
    const int64_t count = n - i < block ? n - i : block;
    encode(x + i, codes, count, g, inverse_scale);
    decode(codes, y + i, count, g);
  }
}

// The arithmetic of grid::encode() and decode() lane by lane.
void levels(const bf16* x, bf16* y, int64_t n, const Grid& g, float inverse_scale, float step) {
  const F32 inverse = splat<F32>(inverse_scale), zero = splat<F32>(g.zero_point), unit = splat<F32>(step);
  const F32 low = splat<F32>(static_cast<float>(g.lo)), high = splat<F32>(static_cast<float>(g.hi));
  const F32 shift = splat<F32>(0x1.8p23f);
  map(
      y, n,
      [=](F32 v) {
        const F32 t = v * inverse + zero;
        const F32 clamped = t > low ? (t < high ? t : high) : low;
        return ((clamped + shift) - shift - zero) * unit;
      },
      x);
}

void affine(const int32_t* acc, const float* b, const float* m, float* y, int64_t rows, int64_t width) {
  for (int64_t r = 0; r < rows; ++r, acc += width, y += width)
    for (int64_t c = 0; c < width; ++c) y[c] = grid::affine(acc[c], b[c], m[c]);
}

void requantise(const int32_t* acc, const float* b, const float* m, uint8_t* codes, int64_t rows,
                int64_t width, int lo, int hi) {
  for (int64_t r = 0; r < rows; ++r, acc += width, codes += width)
    for (int64_t c = 0; c < width; ++c)
      codes[c] = static_cast<uint8_t>(grid::round_saturate(grid::affine(acc[c], b[c], m[c]), lo, hi));
}

void requantise_add(const int32_t* acc, const float* b, const float* m, uint8_t* codes, int64_t rows,
                    int64_t width, int lo, int hi, float ratio) {
  for (int64_t r = 0; r < rows; ++r, acc += width, codes += width)
    for (int64_t c = 0; c < width; ++c) {
      const float t = grid::add_skip(grid::affine(acc[c], b[c], m[c]), codes[c], ratio);
      codes[c] = static_cast<uint8_t>(grid::round_saturate(t, lo, hi));
    }
}

}  // namespace

void enter_grid(Table& table);
void enter_grid(Table& table) {
  table.grid = {encode<uint8_t>, encode<int8_t>, decode<uint8_t>, decode<int8_t>, fake_quantize,
                levels,          affine,         requantise,      requantise_add};
}

}  // namespace stairgrad::simd::STAIRGRAD_ISA
