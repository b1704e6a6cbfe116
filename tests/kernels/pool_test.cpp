#include "kernels/pool.h"

#include <limits>

#include "kernel_test.h"

using namespace stairgrad;

namespace {

struct Case {
  Shape src;
  Pool2dOptions options;
};

std::vector<Case> cases() {
  std::vector<Case> all = {
      {{1, 1, 1, 1}, Pool2dOptions::with(1, 1)},     {{2, 4, 4, 3}, Pool2dOptions::with(2, 2)},
      {{2, 5, 7, 16}, Pool2dOptions::with(3, 2, 1)}, {{1, 6, 5, 17}, Pool2dOptions::with(3, 1, 1)},
      {{3, 8, 8, 33}, Pool2dOptions::with(2, 1)},    {{1, 7, 7, 5}, Pool2dOptions::with(7, 7)},
      {{0, 4, 4, 3}, Pool2dOptions::with(2, 2)},     {{2, 4, 4, 0}, Pool2dOptions::with(2, 2)},
      {{1, 9, 4, 20}, {{3, 2}, {2, 1}, {1, 0}}},     {{1, 2, 2, 4}, Pool2dOptions::with(3, 2, 1)},
  };
  for (const size_t i : {size_t{2}, size_t{3}, size_t{8}}) {
    all.push_back(all[i]);
    all.back().options.count_padding = false;
  }
  return all;
}

// Calls body(flat index of the result, flat indices of the window's elements) for every element of the
// result.
template <class Body>
void for_windows(const Case& c, const Body& body) {
  const Shape dst = kernels::pool2d_shape(c.src, c.options);
  size_t at = 0;
  for (int64_t n = 0; n < dst[0]; ++n)
    for (int64_t row = 0; row < dst[1]; ++row)
      for (int64_t column = 0; column < dst[2]; ++column)
        for (int64_t k = 0; k < dst[3]; ++k) {
          std::vector<size_t> window;
          for (int64_t i = 0; i < c.options.kernel[0]; ++i)
            for (int64_t j = 0; j < c.options.kernel[1]; ++j) {
              const int64_t y = row * c.options.stride[0] - c.options.padding[0] + i;
              const int64_t x = column * c.options.stride[1] - c.options.padding[1] + j;
              if (y >= 0 && y < c.src[1] && x >= 0 && x < c.src[2])
                window.push_back(static_cast<size_t>(((n * c.src[1] + y) * c.src[2] + x) * c.src[3] + k));
            }
          body(at++, window);
        }
}

double divisor(const Case& c, const std::vector<size_t>& window) {
  return c.options.count_padding ? static_cast<double>(c.options.kernel[0] * c.options.kernel[1])
                                 : static_cast<double>(window.size());
}

}  // namespace

TEST_CASE("average pooling and its gradient") {
  for_every_isa([] {
    for_every_float([](DType dtype) {
      for (const Case& c : cases()) {
        CAPTURE(text(c.src, " kernel ", c.options.kernel[0], " padding ", c.options.padding[0]));
        const Shape dst = kernels::pool2d_shape(c.src, c.options);
        const Array x = sample(c.src, dtype, 1), g = sample(dst, dtype, 2);
        const std::vector<double> from = x.to_vector(), diff = g.to_vector();
        std::vector<double> y(static_cast<size_t>(dst.size())), diff_x(from.size());
        for_windows(c, [&](size_t at, const std::vector<size_t>& window) {
          for (const size_t i : window) {
            y[at] += from[i] / divisor(c, window);
            diff_x[i] += diff[at] / divisor(c, window);
          }
        });
        check_close(kernels::avg_pool2d(x, c.options), y, 4, 1);
        check_close(kernels::avg_pool2d_backward(g, c.src, c.options), diff_x, 4, 1);
      }
    });
  });
}

TEST_CASE("max pooling picks the first of the largest, of codes too") {
  for_every_isa([] {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f64, DType::u8, DType::s8, DType::s32}) {
      for (const Case& c : cases()) {
        CAPTURE(text(name_of(dtype), c.src, " kernel ", c.options.kernel[0]));
        // Few different values, so that there are ties.
        Array few = sample(c.src, DType::f64, 1, 2);
        for (int64_t i = 0; i < few.size(); ++i)
          few.data<double>()[i] = std::nearbyint(few.data<double>()[i]);
        Array x(c.src, dtype);
        dispatch_any(dtype, [&](auto zero) {
          using T = decltype(zero);
          for (int64_t i = 0; i < x.size(); ++i)
            x.data<T>()[i] =
                static_cast<T>(static_cast<float>(few.data<double>()[i] + (dtype == DType::u8 ? 50 : 0)));
        });
        const std::vector<double> from = x.to_vector();
        const kernels::MaxPool got = kernels::max_pool2d(x, c.options);
        std::vector<double> y(static_cast<size_t>(got.y.size())), index(y.size());
        for_windows(c, [&](size_t at, const std::vector<size_t>& window) {
          size_t best = window[0];
          for (const size_t i : window)
            if (from[i] > from[best]) best = i;
          y[at] = from[best];
          index[at] = static_cast<double>(best / static_cast<size_t>(c.src[3]) %
                                          static_cast<size_t>(c.src[1] * c.src[2]));
        });
        CHECK(got.y.to_vector() == y);
        CHECK(got.index.to_vector() == index);
        CHECK(same_bits(kernels::max_pool2d_gather(x, got.index), got.y));
      }
    }
  });
}

TEST_CASE("max pooling keeps NaN") {
  Array x = sample({1, 4, 4, 20});
  x.data<float>()[20 * 5 + 3] = std::numeric_limits<float>::quiet_NaN();
  const kernels::MaxPool got = kernels::max_pool2d(x, Pool2dOptions::with(2, 2));
  CHECK(std::isnan(got.y.to_vector()[3]));
  CHECK(got.index.to_vector()[3] == 5);
}

TEST_CASE("scattering is the adjoint of gathering") {
  for_every_float([](DType dtype) {
    for (const Case& c : cases()) {
      const Array x = sample(c.src, dtype, 1);
      const kernels::MaxPool pool = kernels::max_pool2d(x, c.options);
      const Array g = sample(pool.y.shape(), dtype, 2);
      std::vector<double> expected(static_cast<size_t>(c.src.size()));
      for_windows(c, [&](size_t at, const std::vector<size_t>& window) {
        for (const size_t i : window) {
          const auto pixel = static_cast<double>(i / static_cast<size_t>(c.src[3]) %
                                                 static_cast<size_t>(c.src[1] * c.src[2]));
          if (pixel == pool.index.to_vector()[at]) expected[i] += g.to_vector()[at];
        }
      });
      // bf16 sums are rounded at each of up to nine additions.
      check_close(kernels::max_pool2d_scatter(g, pool.index, c.src), expected, dtype == DType::f64 ? 8 : 5,
                  1);
    }
  });
}

TEST_CASE("global average pooling and its gradient") {
  for_every_isa([] {
    for_every_float([](DType dtype) {
      for (const Shape& shape : {Shape{1, 1, 1, 1}, Shape{2, 7, 7, 3}, Shape{3, 8, 8, 64}, Shape{2, 3, 5, 33},
                                 Shape{0, 2, 2, 3}}) {
        const Array x = sample(shape, dtype, 1), g = sample({shape[0], 1, 1, shape[3]}, dtype, 2);
        const auto c = static_cast<size_t>(shape[3]), pixels = static_cast<size_t>(shape[1] * shape[2]);
        const std::vector<double> from = x.to_vector(), diff = g.to_vector();
        std::vector<double> y(diff.size()), diff_x(from.size());
        for (size_t i = 0; i < from.size(); ++i) {
          const size_t at = i / (pixels * c) * c + i % c;
          y[at] += from[i] / static_cast<double>(pixels);
          diff_x[i] = diff[at] / static_cast<double>(pixels);
        }
        const Array got = kernels::global_avg_pool(x);
        CHECK(got.shape() == g.shape());
        check_close(got, y, 8, 1);
        check_close(kernels::global_avg_pool_backward(g, shape), diff_x, 2);
      }
    });
  });
}

TEST_CASE("pooling is reproducible on every instruction set and number of threads") {
  const Array x = sample({16, 33, 33, 20});
  const Pool2dOptions o = Pool2dOptions::with(3, 2, 1);
  const Array g = sample(kernels::pool2d_shape(x.shape(), o), DType::f32, 2);
  const Array index = kernels::max_pool2d(x, o).index;
  check_reproducible([&] { return kernels::avg_pool2d(x, o); });
  check_reproducible([&] { return kernels::avg_pool2d_backward(g, x.shape(), o); });
  check_reproducible([&] { return kernels::max_pool2d(x, o).index; });
  check_reproducible([&] { return kernels::max_pool2d_scatter(g, index, x.shape()); });
  check_reproducible([&] { return kernels::global_avg_pool(x); });
}

TEST_CASE("pooling refuses what does not fit") {
  CHECK_THROWS_AS(kernels::pool2d_shape({2, 3, 4}, {}), argument_error);
  CHECK_THROWS_AS(kernels::pool2d_shape({1, 1, 4, 1}, {}), argument_error);
  CHECK_THROWS_AS(kernels::pool2d_shape({1, 4, 4, 1}, Pool2dOptions::with(0, 1)), argument_error);
  CHECK_THROWS_AS(kernels::pool2d_shape({1, 4, 4, 1}, Pool2dOptions::with(2, 0)), argument_error);
  CHECK_THROWS_AS(kernels::pool2d_shape({1, 4, 4, 1}, Pool2dOptions::with(3, 1, 2)), argument_error);
  CHECK_THROWS_AS(kernels::avg_pool2d_backward(Array({1, 3, 3, 1}), {1, 4, 4, 1}, {}), argument_error);
  CHECK_THROWS_AS(kernels::max_pool2d_gather(Array({1, 4, 4, 1}), Array({2, 2, 2, 1}, DType::s32)),
                  argument_error);
  CHECK_THROWS_AS(kernels::max_pool2d_gather(Array({1, 4, 4, 1}), Array::full({1, 2, 2, 1}, 16, DType::s32)),
                  argument_error);
  CHECK_THROWS_AS(kernels::max_pool2d_scatter(Array({1, 2, 2, 1}), Array::full({1, 2, 2, 1}, -1, DType::s32),
                                              {1, 4, 4, 1}),
                  argument_error);
  CHECK_THROWS_AS(kernels::global_avg_pool(Array({1, 0, 3, 2})), argument_error);
  CHECK_THROWS_AS(kernels::global_avg_pool_backward(Array({1, 2}), {1, 2, 2, 2}), argument_error);
}
