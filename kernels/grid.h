// The integer grid: the one definition of quantization that training, evaluation and integer execution share.
// Sources that include this file are compiled with -ffp-contract=off, so that every rounding below is where
// it stands.
#pragma once

#include <cmath>
#include <cstdint>

namespace stairgrad {

/// Codes lo .. hi stand for the values (code - zero_point) * scale. zero_point is an integer, but for the
/// even symmetric grids (DSQ weights with l = -u, N odd), where it is N / 2: their levels are half-integer
/// and they run on the integer codes 2 * code - N with scale / 2.
struct Grid {
  float scale = 1;
  float zero_point = 0;
  int lo = 0;
  int hi = 255;

  bool operator==(const Grid&) const = default;
};

// Always inlined: kernels/simd compiles callers once per instruction set, and a shared copy of a function
// could be one that this CPU cannot run.
namespace grid {

/// 1 / scale, rounded once from double: codes are x * inverse(scale), never x / scale.
[[gnu::always_inline]] inline float inverse(float scale) {
  return static_cast<float>(1.0 / static_cast<double>(scale));
}

/// Rounds half to even, then saturates to [lo, hi]; NaN becomes lo.
[[gnu::always_inline]] inline int round_saturate(float t, int lo, int hi) {
  const float low = static_cast<float>(lo), high = static_cast<float>(hi);
  const float clamped = t > low ? (t < high ? t : high) : low;
  // Adding 1.5 * 2^23 leaves no bits for a fraction, and the addition rounds half to even: nearbyint without
  // a call.
  constexpr float shift = 0x1.8p23f;
  return static_cast<int>((clamped + shift) - shift);
}

/// Code of a value; `inverse_scale` is inverse(g.scale).
[[gnu::always_inline]] inline int encode(float value, const Grid& g, float inverse_scale) {
  return round_saturate(value * inverse_scale + g.zero_point, g.lo, g.hi);
}
[[gnu::always_inline]] inline int encode(float value, const Grid& g) {
  return encode(value, g, inverse(g.scale));
}

/// Bits that the codes of a grid need.
[[gnu::always_inline]] inline int bits(const Grid& g) {
  int bits = 1;
  while ((1 << bits) - 1 < g.hi - g.lo) ++bits;
  return bits;
}

/// Value of a code.
[[gnu::always_inline]] inline float decode(int code, const Grid& g) {
  return (static_cast<float>(code) - g.zero_point) * g.scale;
}

/// Requantises an exact sum over raw codes: t = (f32(acc) + b) * m. `b` holds the source's zero point times
/// the sum of the weights, bias and batch norm; `m` the product of scales over the scale of the result. What
/// oneDNN computes.
[[gnu::always_inline]] inline float affine(int32_t acc, float b, float m) {
  return (static_cast<float>(acc) + b) * m;
}

/// Adds the skip's code, scaled by skip_scale / dst_scale, in one rounding. The skip's zero point is folded
/// into b.
[[gnu::always_inline]] inline float add_skip(float t, int skip_code, float ratio) {
  return std::fma(static_cast<float>(skip_code), ratio, t);
}

}  // namespace grid
}  // namespace stairgrad
