// Elementwise loops.
#include "functions.h"

namespace stairgrad::simd::STAIRGRAD_ISA {
namespace {

using kernels::Binary;
using kernels::Unary;

template <Unary function, class V>
inline V apply(V x) {
  const V zero = splat<V>(0), one = splat<V>(1);
  if constexpr (function == Unary::neg) return -x;
  if constexpr (function == Unary::abs) return abs(x);
  if constexpr (function == Unary::sign) return x > zero ? one : (x < zero ? -one : x);
  if constexpr (function == Unary::exp) return exp(x);
  if constexpr (function == Unary::log) return log(x);
  if constexpr (function == Unary::sqrt) return sqrt(x);
  if constexpr (function == Unary::rsqrt) return one / sqrt(x);
  if constexpr (function == Unary::tanh) return tanh(x);
  if constexpr (function == Unary::sigmoid) return sigmoid(x);
  if constexpr (function == Unary::softplus) return softplus(x);
  if constexpr (function == Unary::relu) return x < zero ? zero : x;
  if constexpr (function == Unary::floor) return floor(x);
  if constexpr (function == Unary::round) return round(x);
  if constexpr (function == Unary::reciprocal) return one / x;
  if constexpr (function == Unary::square) return x * x;
  if constexpr (function == Unary::erf) return erf(x);
}

template <Binary function, class V>
inline V apply(V a, V b) {
  const V zero = splat<V>(0), one = splat<V>(1);
  if constexpr (function == Binary::add) return a + b;
  if constexpr (function == Binary::sub) return a - b;
  if constexpr (function == Binary::mul) return a * b;
  if constexpr (function == Binary::div) return a / b;
  if constexpr (function == Binary::pow) return pow(a, b);
  if constexpr (function == Binary::minimum) return smaller(a, b);
  if constexpr (function == Binary::maximum) return larger(a, b);
  if constexpr (function == Binary::greater) return a > b ? one : zero;
  if constexpr (function == Binary::greater_equal) return a >= b ? one : zero;
  if constexpr (function == Binary::equal) return a == b ? one : zero;
}

template <class T, Unary function>
void unary(const T* x, T* y, int64_t n) {
  map(
      y, n, [](auto v) { return apply<function>(v); }, x);
}
template <class T, Binary function>
void binary(const T* a, const T* b, T* y, int64_t n) {
  map(
      y, n, [](auto u, auto v) { return apply<function>(u, v); }, a, b);
}
template <class T, Binary function>
void binary_scalar(const T* a, Real<T> b, T* y, int64_t n) {
  const auto v = splat<Vector<T>>(b);
  map(
      y, n, [v](auto u) { return apply<function>(u, v); }, a);
}
template <class T, Binary function>
void scalar_binary(Real<T> a, const T* b, T* y, int64_t n) {
  const auto u = splat<Vector<T>>(a);
  map(
      y, n, [u](auto v) { return apply<function>(u, v); }, b);
}

template <class T>
void affine(const T* x, T* y, int64_t n, Real<T> scale, Real<T> shift) {
  map(
      y, n, [=](auto v) { return v * scale + shift; }, x);
}

template <class T>
void clamp(const T* x, T* y, int64_t n, Real<T> low, Real<T> high) {
  const auto l = splat<Vector<T>>(low), h = splat<Vector<T>>(high);
  map(
      y, n, [=](auto v) { return v < l ? l : (v > h ? h : v); }, x);
}

template <class T>
void where(const T* condition, const T* a, const T* b, T* y, int64_t n) {
  const auto zero = splat<Vector<T>>(0);
  map(
      y, n, [=](auto c, auto u, auto v) { return c != zero ? u : v; }, condition, a, b);
}

template <class T, bool closed>
void pass_inside(const T* u, const T* x, T* y, int64_t n, Real<T> low, Real<T> high) {
  const auto zero = splat<Vector<T>>(0), l = splat<Vector<T>>(low), h = splat<Vector<T>>(high);
  map(
      y, n,
      [=](auto g, auto v) {
        if constexpr (closed) return ((v >= l) & (v <= h)) ? g : zero;
        return ((v > l) & (v < h)) ? g : zero;
      },
      u, x);
}

// A vector of T and of Real<T> have the same number of lanes.
template <class T>
void widen(const T* x, Real<T>* y, int64_t n) {
  map(
      y, n, [](auto v) { return v; }, x);
}
template <class T>
void narrow(const Real<T>* x, T* y, int64_t n) {
  map(
      y, n, [](auto v) { return v; }, x);
}

template <class T, int... unaries, int... binaries>
void enter(Loops<T>& loops, std::integer_sequence<int, unaries...>, std::integer_sequence<int, binaries...>) {
  ((loops.unary[unaries] = unary<T, static_cast<Unary>(unaries)>), ...);
  ((loops.binary[binaries] = binary<T, static_cast<Binary>(binaries)>), ...);
  ((loops.binary_scalar[binaries] = binary_scalar<T, static_cast<Binary>(binaries)>), ...);
  ((loops.scalar_binary[binaries] = scalar_binary<T, static_cast<Binary>(binaries)>), ...);
  loops.affine = affine<T>;
  loops.clamp = clamp<T>;
  loops.where = where<T>;
  loops.pass_inside[false] = pass_inside<T, false>;
  loops.pass_inside[true] = pass_inside<T, true>;
  loops.widen = widen<T>;
  loops.narrow = narrow<T>;
}

}  // namespace

void enter_map(Table& table);
void enter_map(Table& table) {
  constexpr std::make_integer_sequence<int, 16> unaries;
  constexpr std::make_integer_sequence<int, 10> binaries;
  enter(table.f32, unaries, binaries);
  enter(table.b16, unaries, binaries);
  enter(table.f64, unaries, binaries);
}

}  // namespace stairgrad::simd::STAIRGRAD_ISA
