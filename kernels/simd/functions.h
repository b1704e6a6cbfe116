// Elementary functions of vectors: float by polynomials of our own (minimax, within 3 units in the last
// place; subnormals, infinities and NaN included), double by the C library.
#pragma once

#include <math.h>

#include "vector.h"

namespace stairgrad::simd::STAIRGRAD_ISA {
namespace {

inline U32 bits(F32 x) { return reinterpret_cast<U32>(x); }
inline F32 from_bits(U32 u) { return reinterpret_cast<F32>(u); }

/// c[0] + c[1] x + c[2] x^2 + ..., by Horner's rule.
template <int n>
inline F32 polynomial(F32 x, const float (&c)[n]) {
  F32 sum = splat<F32>(c[n - 1]);
  for (int i = n - 2; i >= 0; --i) sum = sum * x + c[i];
  return sum;
}

inline F32 abs(F32 x) { return from_bits(bits(x) & 0x7fffffffu); }
inline double abs(double x) { return ::fabs(x); }
inline F32 copy_sign(F32 magnitude, F32 sign) {
  return from_bits((bits(magnitude) & 0x7fffffffu) | (bits(sign) & 0x80000000u));
}

inline F32 sqrt(F32 x) {
  return lane_by_lane([](float v) { return __builtin_sqrtf(v); }, x);
}
inline double sqrt(double x) { return ::sqrt(x); }
inline F32 floor(F32 x) {
  return lane_by_lane([](float v) { return __builtin_floorf(v); }, x);
}
inline double floor(double x) { return ::floor(x); }
/// Half to even.
inline F32 round(F32 x) {
  return lane_by_lane([](float v) { return __builtin_rintf(v); }, x);
}
inline double round(double x) { return ::rint(x); }

inline F32 exp(F32 x) {
  // x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts, so that n ln 2 is exact.
  const F32 low = splat<F32>(-104), high = splat<F32>(89);
  const F32 t = x < low ? low : (x > high ? high : x);
  constexpr float rounder = 0x1.8p23f;  // adding it rounds to an integer and leaves that in the low bits
  const F32 shifted = t * 1.44269504f + rounder;
  const F32 n = shifted - rounder;
  const F32 r = (t - n * 0.693359375f) - n * -2.12194440e-4f;
  const F32 p = polynomial(r, {0.5f, 0.166665182f, 0.0416662022f, 0.00836902484f, 0.00139507256f});
  const F32 e = 1.0f + (r + r * r * p);
  // 2^n as two factors: n reaches beyond the exponents of normal floats, and the last product rounds once.
  const S32 k = reinterpret_cast<S32>(bits(shifted) - 0x4b400000u);
  const S32 half = k >> 1;
  const F32 first = reinterpret_cast<F32>((half + 127) << 23);
  const F32 second = reinterpret_cast<F32>((k - half + 127) << 23);
  return e * first * second;
}
inline double exp(double x) { return ::exp(x); }

inline F32 log(F32 x) {
  const F32 zero{}, one = splat<F32>(1);
  // x = 2^n (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2); a subnormal is scaled up first.
  const S32 tiny = x < 0x1p-126f;
  const S32 u = reinterpret_cast<S32>(bits(tiny ? x * 0x1p24f : x) - 0x3f3504f3u);
  const F32 exponent = __builtin_convertvector(u >> 23, F32);
  const F32 n = tiny ? exponent - 24.0f : exponent;
  const F32 f = reinterpret_cast<F32>((u & 0x007fffff) + 0x3f3504f3) - one;
  const F32 p = polynomial(f, {0.333333135f, -0.250000089f, 0.200021192f, -0.166679949f, 0.142195538f,
                               -0.124055937f, 0.118881583f, -0.116756216f, 0.0674661249f});
  const F32 square = f * f;
  const F32 tail = f * square * p - 0.5f * square + n * -2.12194440e-4f;
  const F32 result = n * 0.693359375f + (f + tail);
  const F32 infinity = splat<F32>(__builtin_inff());
  const F32 special = x < zero ? zero / zero : (x == zero ? -infinity : x);
  const S32 normal = (x > zero) & (x < infinity);
  return normal ? result : special;
}
inline double log(double x) { return ::log(x); }

/// log(1 + x) for x in [0, 1].
inline F32 log1p(F32 x) {
  const F32 sum = 1.0f + x;
  return log(sum) + (x - (sum - 1.0f)) / sum;
}
inline double log1p(double x) { return ::log1p(x); }

inline F32 tanh(F32 x) {
  const F32 a = abs(x), z = x * x;
  const F32 p = polynomial(z, {-0.333332837f, 0.133314908f, -0.0537435003f, 0.0206505936f, -0.00571705168f});
  const F32 near = x + x * z * p;
  const F32 far = 1.0f - 2.0f / (exp(a + a) + 1.0f);
  return a < 0.625f ? near : copy_sign(far, x);
}
inline double tanh(double x) { return ::tanh(x); }

inline F32 erf(F32 x) {
  const F32 a = abs(x), four = splat<F32>(4);
  const F32 p = polynomial(x * x, {0.128379166f, -0.37612626f, 0.112836003f, -0.0268544443f, 0.00518953567f,
                                   -0.00080208428f, 7.88912366e-05f});
  const F32 near = x + x * p;
  // 1 - erf = exp(-q) with q a polynomial on [1, 4]; beyond 4 erf is 1.
  const F32 q = polynomial(a > four ? four : a, {0.00034153834f, 1.12708914f, 0.63814491f, 0.103106663f,
                                                 -0.0218380205f, 0.00294764759f, -0.000186378107f});
  const F32 far = 1.0f - exp(-q);
  return a < 1.0f ? near : copy_sign(far, x);
}
inline double erf(double x) { return ::erf(x); }

template <class V>
inline V sigmoid(V x) {
  const V zero = splat<V>(0), one = splat<V>(1);
  const V e = exp(-abs(x));  // never overflows
  return (x < zero ? e : one) / (one + e);
}

template <class V>
inline V softplus(V x) {
  const V zero = splat<V>(0);
  return (x < zero ? zero : x) + log1p(exp(-abs(x)));
}

/// By the C library: powers are rare, and its many special cases are right.
inline F32 pow(F32 x, F32 y) {
  for (int i = 0; i < lanes<float>; ++i) x[i] = ::powf(x[i], y[i]);
  return x;
}
inline double pow(double x, double y) { return ::pow(x, y); }

}  // namespace
}  // namespace stairgrad::simd::STAIRGRAD_ISA
