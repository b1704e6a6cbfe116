#include "kernels/norm.h"

#include "kernel_test.h"
#include "kernels/elementwise.h"

using namespace stairgrad;
using kernels::BatchNormGradients;
using kernels::BatchStatistics;

namespace {

DType statistics_type(DType dtype) { return dtype == DType::f64 ? dtype : DType::f32; }

struct Exact {
  std::vector<double> mean, var;
};

Exact exact_statistics(const Array& x) {
  const auto c = static_cast<size_t>(x.shape().back());
  const std::vector<double> v = x.to_vector();
  const auto n = static_cast<double>(v.size() / c);
  Exact s{std::vector<double>(c), std::vector<double>(c)};
  for (size_t i = 0; i < v.size(); ++i) s.mean[i % c] += v[i] / n;
  for (size_t i = 0; i < v.size(); ++i) s.var[i % c] += std::pow(v[i] - s.mean[i % c], 2) / n;
  return s;
}

// A batch norm problem: x, per-channel parameters, skip and the gradient of y.
struct Problem {
  Array x, gamma, beta, skip, diff_y;
  BatchStatistics statistics;

  Problem(const Shape& shape, DType dtype)
      : x(sample(shape, dtype, 1, 2)),
        gamma(sample({shape.back()}, statistics_type(dtype), 2)),
        beta(sample({shape.back()}, statistics_type(dtype), 3)),
        skip(sample(shape, dtype, 4)),
        diff_y(sample(shape, dtype, 5)),
        statistics(kernels::batch_statistics(x)) {}
};

constexpr double eps = 1e-5;

const std::vector<Shape> shapes = {{1, 1},         {5, 1},        {300, 3},       {7, 5, 3, 16},
                                   {2, 9, 11, 32}, {3, 5, 7, 64}, {40, 8, 8, 20}, {33, 255},
                                   {2, 3, 257},    {3, 2048},     {1000, 100},    {16, 32, 32, 16}};

}  // namespace

TEST_CASE("batch statistics of every number of channels") {
  for_every_isa([] {
    for_every_float([](DType dtype) {
      for (const Shape& shape : shapes) {
        CAPTURE(text(shape));
        const Array x = sample(shape, dtype, 1, 2);
        const BatchStatistics got = kernels::batch_statistics(x);
        const Exact expected = exact_statistics(x);
        CHECK(got.mean.shape() == Shape{shape.back()});
        CHECK(got.mean.dtype() == statistics_type(dtype));
        check_close(got.mean, expected.mean, sum_ulps(dtype), 1);
        check_close(got.var, expected.var, 4 * sum_ulps(dtype), 1);
      }
    });
  });
}

TEST_CASE("the variance of values far from zero is right") {
  for_every_isa([] {
    for (const int64_t c : {1, 3, 16, 300}) {
      const Array deviations = sample({4000, c}, DType::f64, 9, 1e-2);
      const Array x = cast(kernels::affine(deviations, 1, 1000), DType::f32);  // f32 steps are 6e-5 here
      const BatchStatistics got = kernels::batch_statistics(x);
      const Exact expected = exact_statistics(x);
      for (size_t j = 0; j < static_cast<size_t>(c); ++j) {
        CHECK(got.mean.to_vector()[j] == doctest::Approx(expected.mean[j]).epsilon(1e-7));
        CHECK(got.var.to_vector()[j] == doctest::Approx(expected.var[j]).epsilon(1e-5));
      }
    }
  });
}

TEST_CASE("an outlier in the first row does not spoil the variance") {
  Array x = sample({4096, 16});
  x.data<float>()[0] = 1e4f;
  const Exact expected = exact_statistics(x);
  check_close(kernels::batch_statistics(x).var, expected.var, 1000);
}

TEST_CASE("a constant channel has variance zero") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const BatchStatistics s = kernels::batch_statistics(Array::full({1000, 7}, 0.1, dtype));
    for (const double v : s.var.to_vector()) CHECK(v == 0);
  }
}

// No activation, ReLU, ReLU up to a limit that about one value in five reaches.
struct Activation {
  bool relu;
  double high = HUGE_VAL;
};
const std::vector<Activation> activations = {{false}, {true}, {true, 0.75}};

TEST_CASE("batch norm with skip and ReLU") {
  for_every_float([](DType dtype) {
    for (const Shape& shape : shapes) {
      CAPTURE(text(shape));
      const Problem p(shape, dtype);
      const auto c = static_cast<size_t>(shape.back());
      const std::vector<double> x = p.x.to_vector(), mean = p.statistics.mean.to_vector(),
                                var = p.statistics.var.to_vector(), gamma = p.gamma.to_vector(),
                                beta = p.beta.to_vector(), skip = p.skip.to_vector();
      for (const bool with_skip : {false, true}) {
        for (const Activation& act : activations) {
          std::vector<double> expected(x.size());
          for (size_t i = 0; i < x.size(); ++i) {
            const size_t j = i % c;
            expected[i] = (x[i] - mean[j]) / std::sqrt(var[j] + eps) * gamma[j] + beta[j];
            if (with_skip) expected[i] += skip[i];
            if (act.relu) expected[i] = std::clamp(expected[i], 0.0, act.high);
          }
          for_every_isa([&] {
            check_close(kernels::batch_norm(p.x, p.statistics.mean, p.statistics.var, p.gamma, p.beta, eps,
                                            with_skip ? p.skip : Array(), act.relu, act.high),
                        expected, 8, 4);
          });
        }
      }
    }
  });
}

TEST_CASE("batch norm gradients") {
  for_every_float([](DType dtype) {
    for (const Shape& shape : shapes) {
      if (shape[0] == 1) continue;  // one element a channel: x - mean is zero, gradients vanish
      CAPTURE(text(shape));
      const Problem p(shape, dtype);
      const auto c = static_cast<size_t>(shape.back());
      const std::vector<double> x = p.x.to_vector(), mean = p.statistics.mean.to_vector(),
                                var = p.statistics.var.to_vector(), gamma = p.gamma.to_vector();
      const auto n = static_cast<double>(x.size() / c);
      for (const Activation& act : activations) {
        const Array y = kernels::batch_norm(p.x, p.statistics.mean, p.statistics.var, p.gamma, p.beta, eps,
                                            p.skip, act.relu, act.high);
        const std::vector<double> result = y.to_vector();
        std::vector<double> g = p.diff_y.to_vector(), diff_gamma(c), diff_beta(c), diff_x(x.size());
        for (size_t i = 0; act.relu && i < g.size(); ++i)
          if (result[i] <= 0 || result[i] >= act.high) g[i] = 0;
        for (size_t i = 0; i < g.size(); ++i) {
          const size_t j = i % c;
          diff_beta[j] += g[i];
          diff_gamma[j] += g[i] * (x[i] - mean[j]) / std::sqrt(var[j] + eps);
        }
        for (size_t i = 0; i < g.size(); ++i) {
          const size_t j = i % c;
          const double factor = 1 / std::sqrt(var[j] + eps);
          diff_x[i] =
              gamma[j] * factor * (g[i] - diff_beta[j] / n - (x[i] - mean[j]) * factor * diff_gamma[j] / n);
        }
        for_every_isa([&] {
          for (const bool skip_needed : {false, true}) {
            const BatchNormGradients got =
                kernels::batch_norm_backward(p.x, p.statistics.mean, p.statistics.var, p.gamma, eps, p.diff_y,
                                             y, act.relu, skip_needed, {}, act.high);
            check_close(got.x, diff_x, sum_ulps(dtype), 4);
            check_close(got.gamma, diff_gamma, sum_ulps(dtype), std::sqrt(n));
            check_close(got.beta, diff_beta, sum_ulps(dtype), std::sqrt(n));
            CHECK(got.gamma.dtype() == statistics_type(dtype));
            CHECK(got.skip.has_value() == skip_needed);
            if (skip_needed) check_close(got.skip, g, 0);
          }
        });
      }
    }
  });
}

TEST_CASE("the mask of the ReLU can be found again from x") {
  for_every_isa([] {
    for_every_float([](DType dtype) {
      for (const Shape& shape : shapes) {
        if (shape[0] == 1) continue;
        CAPTURE(text(shape));
        const Problem p(shape, dtype);
        const Array &m = p.statistics.mean, &v = p.statistics.var;
        for (const double high : {HUGE_VAL, 0.75}) {
          if (dtype == DType::bf16 && high < HUGE_VAL) continue;  // y is rounded up to the limit, x is not
          const Array y = kernels::batch_norm(p.x, m, v, p.gamma, p.beta, eps, {}, true, high);
          const BatchNormGradients by_y = kernels::batch_norm_backward(p.x, m, v, p.gamma, eps, p.diff_y, y,
                                                                       true, true, {}, high),
                                   by_x = kernels::batch_norm_backward(p.x, m, v, p.gamma, eps, p.diff_y, {},
                                                                       true, false, p.beta, high);
          CHECK(same_bits(by_x.x, by_y.x));
          CHECK(same_bits(by_x.gamma, by_y.gamma));
          CHECK(same_bits(by_x.beta, by_y.beta));
        }
      }
    });
  });
}

TEST_CASE("batch norm is reproducible on every instruction set and number of threads") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Shape& shape : {Shape{37, 32, 32, 16}, Shape{37, 9, 11, 20}, Shape{200, 700}}) {
      CAPTURE(text(name_of(dtype), shape));
      const Problem p(shape, dtype);
      const Array y =
          kernels::batch_norm(p.x, p.statistics.mean, p.statistics.var, p.gamma, p.beta, eps, p.skip, true);
      const auto gradients = [&] {
        return kernels::batch_norm_backward(p.x, p.statistics.mean, p.statistics.var, p.gamma, eps, p.diff_y,
                                            y, true, true);
      };
      check_reproducible([&] { return kernels::batch_statistics(p.x).mean; });
      check_reproducible([&] { return kernels::batch_statistics(p.x).var; });
      check_reproducible([&] {
        return kernels::batch_norm(p.x, p.statistics.mean, p.statistics.var, p.gamma, p.beta, eps, p.skip,
                                   true);
      });
      check_reproducible([&] { return gradients().x; });
      check_reproducible([&] { return gradients().gamma; });
      check_reproducible([&] { return gradients().beta; });
      check_reproducible([&] { return gradients().skip; });
    }
  }
}

TEST_CASE("batch norm refuses what does not fit") {
  const Problem p({4, 3}, DType::f32);
  const Array &m = p.statistics.mean, &v = p.statistics.var;
  CHECK_THROWS_AS(kernels::batch_statistics(Array({0, 3})), argument_error);
  CHECK_THROWS_AS(kernels::batch_statistics(Array::scalar(1)), argument_error);
  CHECK_THROWS_AS(kernels::batch_norm(p.x, m, v, sample({4}), p.beta, eps), argument_error);
  CHECK_THROWS_AS(kernels::batch_norm(p.x, m, v, p.gamma, sample({3}, DType::f64), eps), argument_error);
  CHECK_THROWS_AS(kernels::batch_norm(p.x, m, v, p.gamma, p.beta, eps, sample({3, 3})), argument_error);
  CHECK_THROWS_AS(kernels::batch_norm_backward(p.x, m, v, p.gamma, eps, sample({3, 3}), p.x, true, false),
                  argument_error);
  CHECK_THROWS_AS(kernels::batch_norm_backward(p.x, m, v, p.gamma, eps, p.diff_y, Array(), true, false),
                  argument_error);
  CHECK(kernels::batch_norm(Array({0, 3}), m, v, p.gamma, p.beta, eps).shape() == Shape{0, 3});
}
