// Depthwise convolution: our loops against plain loops in f64, on every instruction set and number of
// threads.
#include "../../kernels/depthwise.h"

#include "kernel_test.h"

using namespace stairgrad;
using namespace stairgrad::kernels;

namespace {

constexpr ConvOp every_op[] = {ConvOp::forward, ConvOp::backward_data, ConvOp::backward_weights};

struct Case {
  int64_t n, h, w, c, k, stride;
  std::array<int64_t, 4> padding;

  Shape src() const { return {n, h, w, c}; }
  Shape weights() const { return {c, k, k, 1}; }
  Conv2dOptions options() const { return {{stride, stride}, padding, {1, 1}, c}; }
  Shape dst() const { return conv2d_shape(src(), weights(), options()); }
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  const auto& p = c.padding;
  return out << c.src() << '*' << c.weights() << " stride " << c.stride << " padding " << p[0] << ',' << p[1]
             << ',' << p[2] << ',' << p[3];
}

std::vector<Case> cases() {
  const std::array<int64_t, 4> none{}, one{1, 1, 1, 1}, two{2, 2, 2, 2};
  return {
      {2, 8, 8, 32, 3, 1, one},                                      // layers of MobileNetV2
      {2, 9, 7, 48, 3, 2, one},          {1, 4, 4, 336, 3, 1, one},  // several blocks of channels
      {1, 7, 7, 56, 5, 1, two},                                      // layers of MnasNet
      {2, 8, 10, 32, 5, 2, two},         {3, 6, 5, 33, 3, 1, one},   // no multiple of a vector
      {1, 5, 6, 47, 3, 2, one},          {2, 5, 5, 63, 5, 1, two},
      {1, 6, 6, 39, 5, 2, two},          {2, 8, 8, 32, 3, 2, {0, 1, 0, 1}},  // TensorFlow's SAME
      {1, 7, 9, 32, 5, 2, {1, 2, 1, 2}}, {1, 5, 5, 40, 3, 1, {2, 0, 0, 2}},  // one side
      {1, 6, 5, 32, 5, 1, {0, 3, 1, 0}}, {2, 6, 7, 32, 3, 1, none},
      {1, 8, 8, 32, 5, 2, none},  // the last pixels are not read
      {2, 1, 1, 64, 3, 1, one},   // one pixel
      {1, 1, 1, 32, 3, 2, one},          {1, 1, 1, 32, 5, 2, two},
      {1, 1, 9, 32, 5, 1, two},                                      // one row, one column
      {1, 9, 1, 32, 3, 2, one},          {1, 3, 3, 32, 3, 1, none},  // one result
      {1, 2, 3, 32, 3, 1, {4, 3, 5, 4}},                             // results that see padding alone
      {1, 3, 2, 32, 5, 2, {6, 5, 7, 8}},
  };
}

/// Small integers: all sums are exact, so that a wrong tap shows.
Array integers(const Shape& shape, uint64_t stream) {
  const Philox rng(3, stream);
  Array result(shape, DType::f64);
  for (int64_t i = 0; i < shape.size(); ++i)
    result.data<double>()[i] = static_cast<double>(rng.below(static_cast<uint64_t>(i), 7)) - 3;
  return result;
}

ConvArrays converted(const ConvArrays& a, DType type) {
  return {cast(a.src, type), cast(a.weights, type), cast(a.dst, type)};
}

/// What `op` computes from the other two arrays.
template <class Convolution>
Array result_of(ConvOp op, ConvArrays a, const Case& c, const Convolution& convolution) {
  const bool to_weights = op == ConvOp::backward_weights;
  Array& result = op == ConvOp::forward ? a.dst : to_weights ? a.weights : a.src;
  const DType type = to_weights && a.src.dtype() == DType::bf16 ? DType::f32 : a.src.dtype();
  result = Array::full(result.shape(), 99, type);
  convolution(op, a, c.options());
  return result;
}

ConvArrays arrays(const Case& c) {
  return {integers(c.src(), 1), integers(c.weights(), 2), integers(c.dst(), 3)};
}

}  // namespace

TEST_CASE("depthwise convolutions equal plain loops") {
  for (const Case& c : cases()) {
    CAPTURE(c);
    const ConvArrays exact = arrays(c);
    for (const ConvOp op : every_op) {
      CAPTURE(std::string(name_of(op)));
      const Array expected = result_of(op, exact, c, reference::conv2d);
      for (const DType type : {DType::f32, DType::bf16}) {
        CAPTURE(text(name_of(type)));
        ConvArrays a = converted(exact, type);
        REQUIRE(depthwise::is_suited(a, c.options()));
        for_every_isa([&] {
          const Array got = result_of(op, a, c, depthwise::conv2d);
          CHECK(same_bits(got, cast(expected, got.dtype())));
        });
      }
    }
  }
}

TEST_CASE("depthwise convolutions have the same bits on every instruction set and number of threads") {
  for (const Case& c : {Case{6, 23, 20, 72, 3, 1, {1, 1, 1, 1}},
                        {5, 24, 21, 40, 3, 2, {0, 1, 0, 1}},
                        {8, 17, 16, 32, 5, 1, {2, 2, 2, 2}},
                        {9, 19, 18, 33, 5, 2, {2, 2, 2, 2}}}) {
    CAPTURE(c);
    for (const DType type : {DType::f32, DType::bf16}) {
      CAPTURE(text(name_of(type)));
      const ConvArrays a{sample(c.src(), type, 1), sample(c.weights(), type, 2), sample(c.dst(), type, 3)};
      for (const ConvOp op : every_op) {
        CAPTURE(std::string(name_of(op)));
        check_reproducible([&] { return result_of(op, a, c, depthwise::conv2d); });
        const Array got = result_of(op, a, c, depthwise::conv2d);
        const Array expected = result_of(op, converted(a, DType::f64), c, reference::conv2d);
        const bool to_weights = op == ConvOp::backward_weights;
        const int64_t terms = to_weights ? c.dst().size() / c.c : c.k * c.k;
        check_close(got, expected.to_vector(), got.dtype() == DType::bf16 ? 1 : 64,
                    std::sqrt(static_cast<double>(terms)));
      }
    }
  }
}

TEST_CASE("depthwise convolutions in bf16 round f32 weights to nearest even") {
  const Case c{1, 1, 1, 32, 3, 1, {1, 1, 1, 1}};
  const Array ones = Array::full(c.src(), 1, DType::bf16);
  for (const float weight : {1 + 0x1p-8f, 1 + 0x3p-8f, 1 + 0x1.01p-8f}) {
    const ConvArrays a{ones, Array::full(c.weights(), weight), ones};
    const double rounded = static_cast<float>(bf16(weight));
    for (const ConvOp op : {ConvOp::forward, ConvOp::backward_data})
      CHECK(result_of(op, a, c, depthwise::conv2d).to_vector() == std::vector<double>(32, rounded));
  }
}

TEST_CASE("depthwise convolutions keep NaN and infinities where they are") {
  const Case c{1, 1, 6, 32, 3, 1, {1, 1, 1, 1}};
  for (const DType type : {DType::f32, DType::bf16}) {
    Array x = Array::zeros(c.src());
    x.data<float>()[1 * 32 + 4] = NAN;
    x.data<float>()[3 * 32 + 5] = INFINITY;
    const ConvArrays a{cast(x, type), Array::full(c.weights(), 1, type), Array(c.dst(), type)};
    for_every_isa([&] {
      const std::vector<double> y = result_of(ConvOp::forward, a, c, depthwise::conv2d).to_vector();
      for (size_t i = 0; i < y.size(); ++i) {
        const size_t pixel = i / 32, channel = i % 32;
        CAPTURE(i);
        if (channel == 4 && pixel <= 2)
          CHECK(std::isnan(y[i]));
        else
          CHECK(y[i] == (channel == 5 && pixel >= 2 && pixel <= 4 ? INFINITY : 0));
      }
    });
  }
}

TEST_CASE("depthwise loops take what suits them") {
  const auto suited = [](int64_t channels, const Shape& weights, const Conv2dOptions& o, DType type) {
    return depthwise::is_suited({Array({1, 9, 9, channels}, type), Array(weights, type), {}}, o);
  };
  const auto with = Conv2dOptions::with;
  CHECK(suited(16, {16, 3, 3, 1}, with(1, 1, 16), DType::f32));
  CHECK(suited(32, {32, 5, 5, 1}, with(2, 2, 32), DType::bf16));
  CHECK_FALSE(suited(15, {15, 3, 3, 1}, with(1, 1, 15), DType::f32));  // too few channels
  CHECK_FALSE(suited(31, {31, 3, 3, 1}, with(1, 1, 31), DType::bf16));
  CHECK_FALSE(suited(32, {32, 3, 3, 1}, with(1, 1, 32), DType::f64));
  CHECK_FALSE(suited(32, {64, 3, 3, 1}, with(1, 1, 32), DType::f32));  // two filters a channel
  CHECK_FALSE(suited(64, {64, 3, 3, 2}, with(1, 1, 32), DType::f32));  // two channels a group
  CHECK_FALSE(suited(32, {32, 7, 7, 1}, with(1, 3, 32), DType::f32));
  CHECK_FALSE(suited(32, {32, 3, 5, 1}, with(1, 1, 32), DType::f32));
  CHECK_FALSE(suited(32, {32, 3, 3, 1}, with(3, 1, 32), DType::f32));
  CHECK_FALSE(suited(32, {32, 3, 3, 1}, {{1, 2}, {}, {1, 1}, 32}, DType::f32));
  CHECK_FALSE(suited(32, {32, 3, 3, 1}, {{1, 1}, {}, {1, 2}, 32}, DType::f32));
}

TEST_CASE("conv2d and its gradients run depthwise layers on these loops") {
  const Case c{3, 9, 9, 48, 3, 2, {1, 1, 1, 1}};
  for (const DType type : {DType::f32, DType::bf16}) {
    const ConvArrays a{sample(c.src(), type, 1), sample(c.weights(), type, 2), sample(c.dst(), type, 3)};
    const auto run = [&](ConvOp op) { return result_of(op, a, c, depthwise::conv2d); };
    CHECK(same_bits(conv2d(a.src, a.weights, c.options()), run(ConvOp::forward)));
    CHECK(
        same_bits(conv2d_backward_data(a.dst, a.weights, c.src(), c.options()), run(ConvOp::backward_data)));
    CHECK(same_bits(conv2d_backward_weights(a.src, a.dst, c.weights(), c.options()),
                    run(ConvOp::backward_weights)));
  }
}
