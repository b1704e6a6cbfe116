#include "kernels/reduce.h"

#include <limits>

#include "kernel_test.h"

using namespace stairgrad;
using kernels::Axes;
using kernels::Reduction;

namespace {

// What reduce() promises, one element at a time.
std::vector<double> expected_reduction(Reduction kind, const Array& x, const std::vector<bool>& reduced) {
  Shape kept;
  for (int i = 0; i < x.rank(); ++i) kept.push_back(reduced[static_cast<size_t>(i)] ? 1 : x.dim(i));
  std::vector<double> result(static_cast<size_t>(kept.size()), 0);
  std::vector<bool> seen(result.size(), false);
  const std::vector<double> values = x.to_vector();
  for (int64_t i = 0; i < x.size(); ++i) {
    int64_t at = 0, stride = 1, left = i;
    for (int axis = x.rank() - 1; axis >= 0; --axis) {
      const int64_t coordinate = left % x.dim(axis);
      left /= x.dim(axis);
      if (reduced[static_cast<size_t>(axis)]) continue;
      at += coordinate * stride;
      stride *= x.dim(axis);
    }
    double& r = result[static_cast<size_t>(at)];
    const double v = values[static_cast<size_t>(i)];
    if (kind == Reduction::sum)
      r += v;
    else
      r = !seen[static_cast<size_t>(at)] ? v : kind == Reduction::max ? std::max(r, v) : std::min(r, v);
    seen[static_cast<size_t>(at)] = true;
  }
  return result;
}

std::vector<double> exact_softmax(const Array& x, bool logarithm) {
  std::vector<double> values = x.to_vector();
  const auto n = static_cast<size_t>(x.shape().back());
  for (size_t row = 0; row < values.size(); row += n) {
    double max = values[row], sum = 0;
    for (size_t i = 0; i < n; ++i) max = std::max(max, values[row + i]);
    for (size_t i = 0; i < n; ++i) sum += std::exp(values[row + i] - max);
    for (size_t i = 0; i < n; ++i) {
      const double t = values[row + i] - max - std::log(sum);
      values[row + i] = logarithm ? t : std::exp(t);
    }
  }
  return values;
}

}  // namespace

TEST_CASE("reduce over every set of axes") {
  const std::vector<Shape> shapes = {{1},          {5},         {33},           {3, 4},
                                     {2, 3, 4},    {3, 1, 17},  {2, 3, 2, 33},  {2, 2, 3, 2, 3},
                                     {1, 1, 1, 1}, {40, 3, 90}, {2, 40, 20, 16}};
  for_every_float([&](DType dtype) {
    for (const Shape& shape : shapes) {
      const Array x = sample(shape, dtype);
      for (unsigned mask = 1; mask < 1u << shape.rank(); ++mask) {
        CAPTURE(text(shape, " over the axes ", mask));
        Axes axes;
        std::vector<bool> reduced(static_cast<size_t>(shape.rank()));
        Shape kept, dropped;
        for (int i = 0; i < shape.rank(); ++i) {
          const bool r = mask >> i & 1;
          reduced[static_cast<size_t>(i)] = r;
          if (r) axes.push_back(i % 2 ? i : i - shape.rank());
          kept.push_back(r ? 1 : shape[i]);
          if (!r) dropped.push_back(shape[i]);
        }
        for (const Reduction kind : {Reduction::sum, Reduction::max, Reduction::min}) {
          const std::vector<double> expected = expected_reduction(kind, x, reduced);
          // A sum of n normal values is accurate to some units of sqrt(n).
          const double terms = static_cast<double>(x.size()) / static_cast<double>(kept.size());
          for_every_isa([&] {
            const Array y = kernels::reduce(kind, x, axes, true);
            CHECK(y.shape() == kept);
            check_close(y, expected, kind == Reduction::sum ? sum_ulps(dtype) : 0, std::sqrt(terms));
            CHECK(same_bits(kernels::reduce(kind, x, axes), y.reshape(dropped)));
          });
        }
      }
    }
  });
}

TEST_CASE("no axes means all axes") {
  const Array x = sample({3, 4, 5});
  CHECK(kernels::reduce(Reduction::sum, x).shape() == Shape{});
  CHECK(same_bits(kernels::reduce(Reduction::sum, x), kernels::reduce(Reduction::sum, x, {0, 1, 2})));
  CHECK(kernels::reduce(Reduction::max, Array::scalar(3)).item() == 3);
}

TEST_CASE("an empty sum is zero and an empty extreme is refused") {
  CHECK(kernels::reduce(Reduction::sum, Array({0, 3})).item() == 0);
  CHECK(kernels::reduce(Reduction::sum, Array({0, 3}), {0}).to_vector() == std::vector<double>{0, 0, 0});
  CHECK(kernels::reduce(Reduction::sum, Array({3, 0}), {1}).to_vector() == std::vector<double>{0, 0, 0});
  CHECK(kernels::reduce(Reduction::max, Array({0, 3}), {1}).shape() == Shape{0});
  CHECK_THROWS_AS(kernels::reduce(Reduction::max, Array({0, 3})), argument_error);
  CHECK_THROWS_AS(kernels::reduce(Reduction::min, Array({3, 0}), {1}), argument_error);
  CHECK_THROWS_AS(kernels::reduce(Reduction::sum, Array({3}), {1}), argument_error);
  CHECK_THROWS_AS(kernels::reduce(Reduction::sum, Array({3}), {-2}), argument_error);
}

TEST_CASE("reductions are reproducible on every instruction set and number of threads") {
  const Array x = sample({64, 20, 30, 16}), wide = sample({3, 200003}), odd = sample({7001, 37}, DType::bf16);
  check_reproducible([&] { return kernels::reduce(Reduction::sum, x); });
  check_reproducible([&] { return kernels::reduce(Reduction::sum, x, {0, 1, 2}); });
  check_reproducible([&] { return kernels::reduce(Reduction::sum, x, {1, 3}); });
  check_reproducible([&] { return kernels::reduce(Reduction::sum, wide, {1}); });
  check_reproducible([&] { return kernels::reduce(Reduction::sum, odd, {0}); });
  check_reproducible([&] { return kernels::reduce(Reduction::max, odd, {0}); });
  check_reproducible([&] { return kernels::softmax(odd); });
  check_reproducible([&] { return kernels::log_softmax(wide); });
}

TEST_CASE("a long sum keeps its precision") {
  const Array x = Array::full({10'000'000}, 0.1);
  const double exact = 1e7 * static_cast<double>(0.1f);
  CHECK(kernels::reduce(Reduction::sum, x).item() == doctest::Approx(exact).epsilon(1e-6));
  CHECK(kernels::reduce(Reduction::sum, x.reshape({10'000'000, 1}), {0}).item() ==
        doctest::Approx(exact).epsilon(1e-6));
  CHECK(kernels::reduce(Reduction::sum, x.reshape({5'000'000, 2}), {0}).to_vector()[1] ==
        doctest::Approx(exact / 2).epsilon(1e-6));
}

TEST_CASE("extremes keep NaN wherever it stands") {
  for_every_isa([] {
    for (const int64_t at : {0, 1, 15, 16, 40, 66}) {
      Array x = sample({67});
      x.data<float>()[at] = std::numeric_limits<float>::quiet_NaN();
      CHECK(std::isnan(kernels::reduce(Reduction::max, x).item()));
      CHECK(std::isnan(kernels::reduce(Reduction::min, x).item()));
      CHECK(std::isnan(kernels::reduce(Reduction::max, x.reshape({67, 1}), {0}).item()));
    }
  });
}

TEST_CASE("argmax is the first of the largest") {
  const Array x = Array::of<float>({1, 3, 3, 2, 5, 5, 0, -1, -2, -2, -2, -2}, {3, 4});
  CHECK(kernels::argmax(x).to_vector() == std::vector<double>{1, 0, 0});
  CHECK(kernels::argmax(x).shape() == Shape{3});
  CHECK(kernels::argmax(sample({1})).shape() == Shape{});
  CHECK(kernels::argmax(Array({0, 3})).shape() == Shape{0});
  CHECK_THROWS_AS(kernels::argmax(Array({3, 0})), argument_error);
  CHECK_THROWS_AS(kernels::argmax(Array::scalar(1)), argument_error);
}

TEST_CASE("softmax and its logarithm") {
  for_every_isa([] {
    for_every_float([](DType dtype) {
      for (const Shape& shape :
           {Shape{1}, Shape{3, 1}, Shape{2, 10}, Shape{4, 1000}, Shape{2, 3, 17}, Shape{0, 4}}) {
        const Array x = sample(shape, dtype, 3, 4);
        check_close(kernels::softmax(x), exact_softmax(x, false), 32, 1e-4);
        check_close(kernels::log_softmax(x), exact_softmax(x, true), 4, 8);
      }
    });
  });
  const Array extreme = Array::of<float>({1e30f, 0, -1e30f, -1e30f, -1e30f, -1e30f}, {2, 3});
  check_close(kernels::softmax(extreme), {1, 0, 0, 1 / 3.0, 1 / 3.0, 1 / 3.0}, 1);
  CHECK(kernels::log_softmax(extreme).to_vector()[0] == 0);
  CHECK_THROWS_AS(kernels::softmax(Array::scalar(1)), argument_error);
  CHECK_THROWS_AS(kernels::softmax(Array({2, 0})), argument_error);
}
