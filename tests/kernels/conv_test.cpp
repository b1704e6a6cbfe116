// Convolution: plain loops (f64) against the fast kernels (f32, bf16), and the laws that tie the three ops.
#include "../../kernels/conv.h"

#include <functional>

#include "../message.h"
#include "kernel_test.h"

using namespace stairgrad;
using namespace stairgrad::kernels;

namespace {

struct Case {
  Shape src, weights;
  Conv2dOptions options;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  const Conv2dOptions& o = c.options;
  return out << c.src << '*' << c.weights << " stride " << o.stride[0] << 'x' << o.stride[1] << " padding "
             << o.padding[0] << ',' << o.padding[1] << ',' << o.padding[2] << ',' << o.padding[3]
             << " dilation " << o.dilation[0] << 'x' << o.dilation[1] << " groups " << o.groups;
}

std::vector<Case> cases() {
  const auto with = [](int64_t stride, int64_t padding, int64_t groups = 1) {
    return Conv2dOptions::with(stride, padding, groups);
  };
  return {
      {{4, 32, 32, 3}, {16, 3, 3, 3}, with(1, 1)},  // stems
      {{4, 28, 28, 1}, {16, 3, 3, 1}, with(1, 1)},
      {{2, 30, 30, 3}, {24, 7, 7, 3}, with(2, 3)},
      {{4, 32, 32, 16}, {16, 3, 3, 16}, with(1, 1)},  // ResNet-20
      {{4, 32, 32, 16}, {32, 3, 3, 16}, with(2, 1)},
      {{4, 32, 32, 16}, {32, 1, 1, 16}, with(2, 0)},
      {{4, 8, 8, 64}, {64, 3, 3, 64}, with(1, 1)},
      {{3, 7, 9, 40}, {72, 1, 1, 40}, with(1, 0)},  // 1x1
      {{2, 9, 7, 5}, {7, 3, 3, 5}, with(1, 1)},     // odd sizes
      {{1, 11, 13, 17}, {19, 5, 3, 17}, {{2, 3}, {1, 2, 0, 1}, {1, 1}, 1}},
      {{2, 10, 10, 8}, {8, 3, 3, 8}, {{1, 1}, {2, 2, 2, 2}, {2, 2}, 1}},  // dilation
      {{1, 12, 9, 6}, {4, 3, 2, 6}, {{2, 1}, {0, 1, 1, 0}, {3, 2}, 1}},
      {{2, 8, 8, 4}, {4, 3, 3, 4}, {{2, 2}, {0, 1, 0, 1}, {1, 1}, 1}},  // TensorFlow's SAME
      {{2, 9, 9, 12}, {18, 3, 3, 4}, with(1, 1, 3)},                    // groups
      {{2, 9, 9, 32}, {64, 3, 3, 16}, with(2, 1, 2)},
      {{2, 8, 8, 48}, {48, 1, 1, 24}, with(1, 0, 2)},
      {{2, 14, 14, 32}, {32, 3, 3, 1}, with(1, 1, 32)},  // depthwise
      {{2, 15, 15, 19}, {19, 3, 3, 1}, with(2, 1, 19)},
      {{1, 9, 9, 24}, {24, 5, 5, 1}, with(1, 2, 24)},
      {{2, 8, 8, 6}, {12, 3, 3, 1}, with(1, 1, 6)},  // two filters per channel
      {{1, 1, 1, 16}, {32, 3, 3, 16}, with(1, 1)},   // one pixel
      {{1, 1, 1, 1}, {1, 1, 1, 1}, {}},
      {{2, 4, 4, 3}, {5, 1, 1, 3}, with(1, 2)},  // results that see padding alone
      {{1, 1, 10, 8}, {16, 2, 4, 8}, {{2, 1}, {1, 1, 2, 0}, {2, 1}, 1}},
      {{2, 10, 2, 3}, {16, 3, 3, 3}, {{2, 3}, {1, 1, 0, 1}, {1, 1}, 1}},  // taps that do
      {{1, 4, 4, 3}, {5, 4, 4, 3}, with(1, 0)},                           // one result
  };
}

Array noise(const Shape& shape, uint64_t stream) {
  return random_normal(shape, Philox(7, stream), 1, DType::f64);
}

/// Largest difference relative to the largest magnitude of `expected`.
double relative_error(const Array& got, const Array& expected) {
  REQUIRE(got.shape() == expected.shape());
  const auto a = got.to_vector(), b = expected.to_vector();
  double difference = 0, magnitude = 1e-30;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) return INFINITY;
    difference = std::max(difference, std::abs(a[i] - b[i]));
    magnitude = std::max(magnitude, std::abs(b[i]));
  }
  return difference / magnitude;
}

double inner(const Array& a, const Array& b) {
  const auto x = a.to_vector(), y = b.to_vector();
  REQUIRE(x.size() == y.size());
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

struct Results {
  Array forward, data, weights;
};

Results all_three(const Case& c, const Array& x, const Array& w, const Array& g) {
  return {conv2d(x, w, c.options), conv2d_backward_data(g, w, c.src, c.options),
          conv2d_backward_weights(x, g, c.weights, c.options)};
}

}  // namespace

TEST_CASE("conv2d by hand") {
  const Array x = Array::of<double>({1, 2, 3, 4}, {1, 2, 2, 1});
  const Array w = Array::of<double>({1, 10, 100, 1000}, {1, 2, 2, 1});
  CHECK(conv2d(x, w, {}).to_vector() == std::vector<double>{4321});
  const Conv2dOptions top_left{{1, 1}, {1, 0, 1, 0}, {1, 1}, 1};
  CHECK(conv2d(x, w, top_left).to_vector() == std::vector<double>{1000, 2100, 3010, 4321});
}

TEST_CASE("the adjoint identities hold in f64") {
  for (const Case& c : cases()) {
    CAPTURE(c);
    const Array x = noise(c.src, 1), w = noise(c.weights, 2);
    const Array g = noise(conv2d_shape(c.src, c.weights, c.options), 3);
    const Results r = all_three(c, x, w, g);
    const double pairing = inner(r.forward, g);
    CHECK(inner(x, r.data) == doctest::Approx(pairing).epsilon(1e-10));
    CHECK(inner(w, r.weights) == doctest::Approx(pairing).epsilon(1e-10));
  }
}

TEST_CASE("f32 and bf16 agree with plain loops in f64") {
  for (const Case& c : cases()) {
    CAPTURE(c);
    const Array x = cast(noise(c.src, 1), DType::bf16), w = cast(noise(c.weights, 2), DType::bf16);
    const Array g = cast(noise(conv2d_shape(c.src, c.weights, c.options), 3), DType::bf16);
    const auto in = [](const Array& a, DType type) { return cast(a, type); };
    const auto f64 = DType::f64, f32 = DType::f32;
    const Results exact = all_three(c, in(x, f64), in(w, f64), in(g, f64));

    const Results single = all_three(c, in(x, f32), in(w, f32), in(g, f32));
    CHECK(single.forward.dtype() == f32);
    CHECK(relative_error(single.forward, exact.forward) < 5e-6);
    CHECK(relative_error(single.data, exact.data) < 5e-6);
    CHECK(relative_error(single.weights, exact.weights) < 5e-6);

    for (const DType weights_type : {f32, DType::bf16}) {
      const Results half = all_three(c, x, in(w, weights_type), g);
      CHECK(half.forward.dtype() == DType::bf16);
      CHECK(half.data.dtype() == DType::bf16);
      CHECK(half.weights.dtype() == f32);
      CHECK(relative_error(half.forward, exact.forward) < 0x1p-8);
      CHECK(relative_error(half.data, exact.data) < 0x1p-8);
      CHECK(relative_error(half.weights, exact.weights) < 5e-6);
    }
  }
}

TEST_CASE("bf16 rounds f32 weights to nearest even") {
  const Array x = cast(Array::full({1, 1, 1, 16}, 1), DType::bf16);
  for (const float weight : {1 + 0x1p-8f, 1 + 0x3p-8f, 1 + 0x1.01p-8f}) {
    const Array w = Array::full({16, 1, 1, 16}, weight);
    const double rounded = static_cast<float>(bf16(weight));
    CHECK(conv2d(x, w, {}).to_vector() == std::vector<double>(16, 16 * rounded));
  }
}

TEST_CASE("results do not depend on the number of threads") {
  const int before = threads();
  std::vector<Case> all = cases();
  all.push_back({{67, 9, 9, 16}, {16, 3, 3, 16}, Conv2dOptions::with(1, 1)});  // many uneven pieces
  for (const Case& c : all) {
    CAPTURE(c);
    for (const DType type : {DType::f64, DType::f32, DType::bf16}) {
      const Array x = cast(noise(c.src, 1), type), w = cast(noise(c.weights, 2), type);
      const Array g = cast(noise(conv2d_shape(c.src, c.weights, c.options), 3), type);
      set_threads(1);
      const Results one = all_three(c, x, w, g);
      set_threads(2);
      const Results two = all_three(c, x, w, g);
      set_threads(before);
      CHECK(same_bits(one.forward, two.forward));
      CHECK(same_bits(one.data, two.data));
      CHECK(same_bits(one.weights, two.weights));
    }
  }
}

TEST_CASE("empty arrays convolve to zeros") {
  const Conv2dOptions same = Conv2dOptions::with(1, 1);
  for (const DType type : {DType::f64, DType::f32, DType::bf16}) {
    const Array no_images({0, 4, 4, 3}, type), w = Array::full({2, 3, 3, 3}, 1, type);
    CHECK(conv2d(no_images, w, same).shape() == Shape{0, 4, 4, 2});
    CHECK(conv2d_backward_weights(no_images, Array({0, 4, 4, 2}, type), w.shape(), same).to_vector() ==
          std::vector<double>(54, 0));
    const Array no_channels({1, 2, 2, 0}, type);
    CHECK(conv2d(no_channels, Array({2, 3, 3, 0}, type), same).to_vector() == std::vector<double>(8, 0));
  }
}

TEST_CASE("conv2d says what is wrong") {
  const auto shape_error = [](const Shape& src, const Shape& weights, const Conv2dOptions& o) {
    return message_of<argument_error>([&] { conv2d_shape(src, weights, o); });
  };
  CHECK(contains(shape_error({8, 32, 16}, {16, 3, 3, 16}, {}), "src: got (8,32,16), expected (n, h, w, ic)"));
  CHECK(contains(shape_error({8, 9, 9, 16}, {64, 3, 3, 3}, {}),
                 "weights: got (64,3,3,3), expected ic / groups = 16"));
  CHECK(contains(shape_error({8, 9, 9, 16}, {64, 3, 3, 4}, Conv2dOptions::with(1, 1, 3)), "groups: got 3"));
  CHECK(contains(shape_error({8, 9, 9, 16}, {6, 3, 3, 4}, Conv2dOptions::with(1, 1, 4)), "oc = 6"));
  CHECK(contains(shape_error({1, 2, 9, 1}, {1, 3, 3, 1}, {}), "rows reach over 3 pixels"));
  CHECK(contains(shape_error({1, 9, 4, 1}, {1, 3, 3, 1}, {{1, 1}, {}, {1, 2}, 1}), "columns reach over 5"));
  CHECK(contains(shape_error({1, 9, 4, 1}, {1, 0, 3, 1}, {}), "rows reach"));
  CHECK(contains(shape_error({1, 9, 9, 1}, {1, 3, 3, 1}, {{0, 1}, {}, {1, 1}, 1}), "stride: got 0 x 1"));
  CHECK(contains(shape_error({1, 9, 9, 1}, {1, 3, 3, 1}, {{1, 1}, {}, {1, 0}, 1}), "dilation: got 1 x 0"));
  CHECK(contains(shape_error({1, 9, 9, 1}, {1, 3, 3, 1}, {{1, 1}, {0, -1, 0, 0}, {1, 1}, 1}),
                 "padding: got -1"));

  const Array x = Array::zeros({1, 4, 4, 2}), w = Array::zeros({3, 3, 3, 2});
  CHECK(contains(message_of<argument_error>([&] { conv2d(x, cast(w, DType::f64), {}); }),
                 "weights: got f64, expected f32 as src"));
  CHECK(contains(message_of<argument_error>([&] { conv2d(cast(x, DType::bf16), cast(w, DType::f64), {}); }),
                 "or f32"));
  CHECK(contains(message_of<argument_error>([&] {
                   conv2d(Array::zeros({1, 4, 4, 2}, DType::u8), w, {});
                 }),
                 "IntegerConv"));
  CHECK(contains(message_of<argument_error>([&] { conv2d_backward_data(x, w, x.shape(), {}); }),
                 "diff_dst: got (1,4,4,2), expected (1,2,2,3)"));
  CHECK(contains(message_of<argument_error>([&] { conv2d_backward_weights(x, x, w.shape(), {}); }),
                 "expected (1,2,2,3)"));
  CHECK(contains(message_of<argument_error>([&] {
                   conv2d_backward_weights(x, Array::zeros({1, 2, 2, 3}, DType::f64), w.shape(), {});
                 }),
                 "diff_dst: got f64"));
}
