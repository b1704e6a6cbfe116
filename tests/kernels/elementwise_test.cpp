#include "kernels/elementwise.h"

#include <functional>
#include <limits>

#include "kernel_test.h"

using namespace stairgrad;
using kernels::Binary;
using kernels::Unary;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
const double not_a_number = std::nan("");

struct UnaryCase {
  Unary function;
  const char* name;
  std::function<double(double)> expected;
  double ulps;
};

const std::vector<UnaryCase>& unary_cases() {
  static const std::vector<UnaryCase> cases = {
      {Unary::neg, "neg", [](double x) { return -x; }, 0},
      {Unary::abs, "abs", [](double x) { return std::fabs(x); }, 0},
      {Unary::sign, "sign", [](double x) { return x > 0   ? 1.0
                                                  : x < 0 ? -1.0
                                                          : x; }, 0},
      {Unary::exp, "exp", [](double x) { return std::exp(x); }, 3},
      {Unary::log, "log", [](double x) { return std::log(x); }, 3},
      {Unary::sqrt, "sqrt", [](double x) { return std::sqrt(x); }, 1},
      {Unary::rsqrt, "rsqrt", [](double x) { return 1 / std::sqrt(x); }, 2},
      {Unary::tanh, "tanh", [](double x) { return std::tanh(x); }, 2},
      {Unary::sigmoid, "sigmoid",
       [](double x) { return std::exp(std::fmin(x, 0)) / (1 + std::exp(-std::fabs(x))); }, 3},
      {Unary::softplus, "softplus",
       [](double x) { return std::log1p(std::exp(-std::fabs(x))) + std::fmax(x, 0); }, 3},
      {Unary::relu, "relu", [](double x) { return x < 0 ? 0 : x; }, 0},
      {Unary::floor, "floor", [](double x) { return std::floor(x); }, 0},
      {Unary::round, "round", [](double x) { return std::nearbyint(x); }, 0},
      {Unary::reciprocal, "reciprocal", [](double x) { return 1 / x; }, 1},
      {Unary::square, "square", [](double x) { return x * x; }, 1},
      {Unary::erf, "erf", [](double x) { return std::erf(x); }, 3},
  };
  return cases;
}

// Values on which functions go wrong, and a sweep over all exponents of an f32 with both signs.
Array hard_values(DType dtype) {
  std::vector<double> values = {0.0,   -0.0,    infinity, -infinity, not_a_number, 1,      -1,      0.5,
                                -0.5,  1.5,     2.5,      -2.5,      88.7,         88.8,   -87.4,   -103.9,
                                -104,  -150,    150,      1e-45,     3e-39,        -3e-39, 9,       -9.01,
                                0.625, -0.6249, 0.9999,   1.0001,    3.9999,       4.0001, 8388609, -8388609};
  const Philox rng(7);
  for (uint64_t i = 0; i < 20000; ++i) {
    const double magnitude = std::exp2(-148 + 276 * rng.uniform(i));
    values.push_back(i % 2 ? magnitude : -magnitude);
  }
  for (int i = -3000; i < 3000; ++i) values.push_back(i / 29.0);
  for (int i = 0; i < 4000; ++i) values.push_back(0.5 + i / 4000.0);
  Array wide = Array::of(values);
  return cast(wide, dtype);
}

double binary_expected(Binary function, double a, double b) {
  switch (function) {
    case Binary::add:
      return a + b;
    case Binary::sub:
      return a - b;
    case Binary::mul:
      return a * b;
    case Binary::div:
      return a / b;
    case Binary::pow:
      return std::pow(a, b);
    case Binary::minimum:
      return std::isnan(a) || std::isnan(b) ? not_a_number : std::min(a, b);
    case Binary::maximum:
      return std::isnan(a) || std::isnan(b) ? not_a_number : std::max(a, b);
    case Binary::greater:
      return a > b;
    case Binary::greater_equal:
      return a >= b;
    default:
      return a == b;
  }
}

constexpr Binary all_binary[] = {Binary::add,           Binary::sub,     Binary::mul,     Binary::div,
                                 Binary::pow,           Binary::minimum, Binary::maximum, Binary::greater,
                                 Binary::greater_equal, Binary::equal};

// The element of `x` that NumPy's broadcasting puts at flat position `i` of `shape`.
double broadcast_element(const std::vector<double>& x, const Shape& from, const Shape& shape, int64_t i) {
  int64_t at = 0, stride = 1;
  for (int axis = 1; axis <= shape.rank(); ++axis) {
    const int64_t coordinate = i % shape[-axis];
    i /= shape[-axis];
    if (axis > from.rank()) continue;
    if (from[-axis] != 1) at += coordinate * stride;
    stride *= from[-axis];
  }
  return x[static_cast<size_t>(at)];
}

}  // namespace

TEST_CASE("unary functions are within their bound of the double result, special values included") {
  for_every_isa([] {
    for_every_float([](DType dtype) {
      const Array x = hard_values(dtype);
      for (const UnaryCase& c : unary_cases()) {
        CAPTURE(text(c.name));
        std::vector<double> expected = x.to_vector();
        for (double& value : expected) value = c.expected(value);
        if (dtype != DType::f64) {  // what overflows or vanishes in f32
          for (double& value : expected) value = static_cast<double>(static_cast<float>(value));
        }
        if (dtype == DType::bf16) expected = cast(Array::of(expected), DType::bf16).to_vector();
        // The last subnormals are as far apart as their size.
        check_close(kernels::unary(c.function, x), expected, dtype == DType::bf16 ? 1 : c.ulps,
                    dtype == DType::f64 ? 0 : 0x1p-126);
      }
    });
  });
}

TEST_CASE("unary functions of f32 do not depend on where an element stands") {
  const Array x = hard_values(DType::f32);
  for (const UnaryCase& c : unary_cases()) {
    CAPTURE(text(c.name));
    const Array y = kernels::unary(c.function, x);
    for (const int64_t first : {0, 1, 3, 17, 100}) {
      const int64_t count = 33;
      CHECK(same_bits(kernels::unary(c.function, x.slice(first, count).clone()), y.slice(first, count)));
    }
  }
}

TEST_CASE("elementwise functions are reproducible on every instruction set and number of threads") {
  const Array x = sample({100003}, DType::f32, 1, 3), y = sample({100003}, DType::f32, 2);
  for (const UnaryCase& c : unary_cases()) {
    if (c.function == Unary::log || c.function == Unary::sqrt || c.function == Unary::rsqrt) continue;
    CAPTURE(text(c.name));
    check_reproducible([&] { return kernels::unary(c.function, x); });
  }
  for (const Binary f : {Binary::add, Binary::mul, Binary::div, Binary::maximum})
    check_reproducible([&] { return kernels::binary(f, x, y); });
}

TEST_CASE("affine and clamp") {
  for_every_isa([] {
    for_every_float([](DType dtype) {
      for (const int64_t n : {0, 1, 15, 16, 17, 1000}) {
        const Array x = sample({n}, dtype);
        std::vector<double> affine, clamped;
        for (const double v : x.to_vector()) {
          affine.push_back(v * 1.5 + 0.25);
          clamped.push_back(std::min(std::max(v, -0.5), 0.75));
        }
        check_close(kernels::affine(x, 1.5, 0.25), affine, 2, 1);
        check_close(kernels::clamp(x, -0.5, 0.75), clamped, 0);
      }
    });
  });
  CHECK(std::isnan(kernels::clamp(Array::scalar(not_a_number), -1, 1).item()));
  CHECK_THROWS_AS(kernels::clamp(Array::scalar(0), 1, -1), argument_error);
}

TEST_CASE("binary functions broadcast like NumPy") {
  struct Case {
    Shape a, b, result;
  };
  const std::vector<Case> cases = {
      {{}, {}, {}},
      {{7}, {}, {7}},
      {{}, {3, 5}, {3, 5}},
      {{1}, {1, 1}, {1, 1}},
      {{3, 5}, {3, 5}, {3, 5}},
      {{2, 3, 4, 16}, {16}, {2, 3, 4, 16}},
      {{5, 7, 3}, {3}, {5, 7, 3}},
      {{300, 5}, {5}, {300, 5}},
      {{5}, {67, 5}, {67, 5}},
      {{300, 5}, {300, 1}, {300, 5}},
      {{4, 1, 6, 1}, {4, 5, 1, 3}, {4, 5, 6, 3}},
      {{2, 1, 3, 1, 2}, {3, 2, 2}, {2, 1, 3, 2, 2}},
      {{1, 33}, {17, 1}, {17, 33}},
      {{0}, {1}, {0}},
      {{3, 0, 2}, {2}, {3, 0, 2}},
      {{2, 600}, {600}, {2, 600}},
  };
  for_every_isa([&] {
    for_every_float([&](DType dtype) {
      for (const Case& c : cases) {
        CAPTURE(text(c.a, " and ", c.b));
        const Array a = sample(c.a, dtype, 1), b = sample(c.b, dtype, 2);
        CHECK(kernels::broadcast_shape(c.a, c.b) == c.result);
        const std::vector<double> va = a.to_vector(), vb = b.to_vector();
        for (const Binary f : all_binary) {
          CAPTURE(static_cast<int>(f));
          std::vector<double> expected(static_cast<size_t>(c.result.size()));
          for (size_t i = 0; i < expected.size(); ++i) {
            const auto at = static_cast<int64_t>(i);
            expected[i] = binary_expected(f, broadcast_element(va, c.a, c.result, at),
                                          broadcast_element(vb, c.b, c.result, at));
          }
          const Array y = kernels::binary(f, a, b);
          CHECK(y.shape() == c.result);
          check_close(y, expected, 1);
        }
      }
    });
  });
}

TEST_CASE("binary functions of NaN and equal values") {
  const Array a = Array::of<float>({1, 2, static_cast<float>(not_a_number), 3, 0.0f}),
              b = Array::of<float>({1, static_cast<float>(not_a_number), 2, 2, -0.0f});
  check_close(kernels::binary(Binary::maximum, a, b), {1, not_a_number, not_a_number, 3, 0}, 0);
  check_close(kernels::binary(Binary::minimum, a, b), {1, not_a_number, not_a_number, 2, 0}, 0);
  check_close(kernels::binary(Binary::equal, a, b), {1, 0, 0, 0, 1}, 0);
  check_close(kernels::binary(Binary::greater, a, b), {0, 0, 0, 1, 0}, 0);
  check_close(kernels::binary(Binary::greater_equal, a, b), {1, 0, 0, 1, 1}, 0);
}

TEST_CASE("binary refuses what does not fit") {
  CHECK_THROWS_AS(kernels::broadcast_shape({3}, {4}), argument_error);
  CHECK_THROWS_AS(kernels::broadcast_shape({2, 3}, {3, 3}), argument_error);
  CHECK_THROWS_AS(kernels::binary(Binary::add, sample({2}), sample({2}, DType::f64)), argument_error);
  CHECK_THROWS_AS(kernels::unary(Unary::exp, Array({2}, DType::s32)), argument_error);
}

TEST_CASE("where picks by a condition") {
  for_every_isa([] {
    for_every_float([](DType dtype) {
      const Array c = kernels::unary(Unary::relu, sample({67}, dtype)), a = sample({67}, dtype, 1),
                  b = sample({67}, dtype, 2);
      std::vector<double> expected = a.to_vector();
      for (size_t i = 0; i < expected.size(); ++i)
        if (c.to_vector()[i] == 0) expected[i] = b.to_vector()[i];
      check_close(kernels::where(c, a, b), expected, 0);
    });
  });
  CHECK_THROWS_AS(kernels::where(sample({2}), sample({2}), sample({3})), argument_error);
}

TEST_CASE("accumulate adds in place") {
  for_every_isa([] {
    for_every_float([](DType dtype) {
      for (const int64_t n : {0, 1, 31, 100001}) {
        Array dst = sample({n}, dtype, 1);
        const Array src = sample({n}, dtype, 2);
        const Array expected = kernels::binary(Binary::add, dst, src);
        kernels::accumulate(dst, src);
        CHECK(same_bits(dst, expected));
      }
    });
  });
  Array dst = sample({2});
  CHECK_THROWS_AS(kernels::accumulate(dst, sample({3})), argument_error);
  CHECK_THROWS_AS(kernels::accumulate(dst, sample({2}, DType::bf16)), argument_error);
}

TEST_CASE("broadcast_to repeats any type") {
  const Array x = indices({1, 2, 3}, {3, 1});
  check_close(kernels::broadcast_to(x, {2, 3, 2}), {1, 1, 2, 2, 3, 3, 1, 1, 2, 2, 3, 3}, 0);
  for_every_float([](DType dtype) {
    for (const Shape& from : {Shape{}, Shape{5}, Shape{4, 1}, Shape{2, 1, 5}, Shape{2, 4, 5}}) {
      const Shape to{2, 4, 5};
      const Array src = sample(from, dtype);
      const Array dst = kernels::broadcast_to(src, to);
      std::vector<double> expected;
      for (int64_t i = 0; i < to.size(); ++i)
        expected.push_back(broadcast_element(src.to_vector(), from, to, i));
      check_close(dst, expected, 0);
    }
  });
  CHECK_THROWS_AS(kernels::broadcast_to(sample({3}), {2}), argument_error);
  CHECK_THROWS_AS(kernels::broadcast_to(sample({2, 2}), {2}), argument_error);
}
