// Quantized values: their integers, and convolutions of integers with exact sums.
#include "../../autograd/quantized.h"

#include <cmath>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../autograd/recorder.h"
#include "settings.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace {

// Random codes on a grid, as a tensor of values.
Quantized random_codes(const Shape& shape, const Grids& grids, uint64_t stream, bool largest = false) {
  const Philox rng(21, stream);
  Array value(shape);
  for (int64_t i = 0; i < value.size(); ++i) {
    const Grid& g = grids[static_cast<size_t>(i * static_cast<int64_t>(grids.size()) / value.size())];
    const auto levels = static_cast<uint64_t>(g.hi - g.lo + 1);
    const int code = largest ? g.hi : g.lo + static_cast<int>(rng.below(static_cast<uint64_t>(i), levels));
    value.data<float>()[i] = grid::decode(code, g);
  }
  return {value, grids};
}

// The definition, in 64-bit integers and one rounding of the sum.
std::vector<float> reference(const Quantized& src, const Quantized& weights, const Conv2dOptions& o) {
  const Array x = src.integers(), w = weights.integers();
  const Array ux = src.unit(), uw = weights.unit();
  const Shape dst = kernels::conv2d_shape(x.shape(), w.shape(), o);
  const int64_t ic = w.dim(3), per_group = dst[3] / o.groups;
  std::vector<float> result;
  for (int64_t n = 0; n < dst[0]; ++n)
    for (int64_t i = 0; i < dst[1]; ++i)
      for (int64_t j = 0; j < dst[2]; ++j)
        for (int64_t c = 0; c < dst[3]; ++c) {
          int64_t sum = 0;
          for (int64_t ki = 0; ki < w.dim(1); ++ki)
            for (int64_t kj = 0; kj < w.dim(2); ++kj) {
              const int64_t row = i * o.stride[0] + ki - o.padding[0],
                            column = j * o.stride[1] + kj - o.padding[2];
              if (row < 0 || row >= x.dim(1) || column < 0 || column >= x.dim(2)) continue;
              const float* pixel = x.data<float>() + ((n * x.dim(1) + row) * x.dim(2) + column) * x.dim(3);
              const float* kernel = w.data<float>() + ((c * w.dim(1) + ki) * w.dim(2) + kj) * ic;
              for (int64_t k = 0; k < ic; ++k)
                sum += static_cast<int64_t>(pixel[c / per_group * ic + k]) * static_cast<int64_t>(kernel[k]);
            }
          const float unit = ux.data<float>()[0] * uw.data<float>()[uw.size() == 1 ? 0 : c];
          result.push_back(static_cast<float>(sum) * unit);
        }
  return result;
}

const Grid u4{0.07f, 0, 0, 15}, u8{0.013f, 0, 0, 255}, shifted{0.02f, 117, 0, 255};
const Grid even4{0.031f, 7.5f, 0, 15}, s8{0.0041f, 0, -127, 127};

}  // namespace

TEST_CASE("integers() times unit() is the value, and integers are integers") {
  for_each_setting([](const Setting& setting) {
    const auto quantizer = setting.make();
    if (!quantizer->traits().uniform) return;
    const Quantized q = (*quantizer)(setting.sample());
    const Array integers = q.integers(), unit = q.unit();
    for (int64_t i = 0; i < integers.size(); ++i) {
      const auto g = static_cast<size_t>(i * unit.size() / integers.size());
      const float value = q.value.value().data<float>()[i], integer = integers.data<float>()[i];
      CHECK(integer == std::nearbyint(integer));
      CHECK(std::abs(integer) <= 255);
      CHECK(value == doctest::Approx(integer * unit.data<float>()[g]).epsilon(1e-6));
      const float code = static_cast<float>(grid::encode(value, q.grids[g]));
      CHECK(integer * unit.data<float>()[g] / q.grids[g].scale ==
            doctest::Approx(code - q.grids[g].zero_point));
    }
  });
}

TEST_CASE("conv2d of codes has exact sums") {
  struct Case {
    Shape src, weights;
    Grid src_grid, weights_grid;
    Conv2dOptions options;
    bool largest = false;
  };
  const std::vector<Case> cases = {
      {{2, 6, 7, 5}, {3, 3, 3, 5}, u4, even4, Conv2dOptions::with(1, 1)},
      {{2, 6, 7, 5}, {3, 3, 3, 5}, shifted, even4, Conv2dOptions::with(2, 1)},
      {{1, 5, 5, 4}, {6, 3, 3, 2}, u8, s8, Conv2dOptions::with(1, 1, 2)},
      {{1, 5, 5, 4}, {4, 3, 3, 1}, u8, s8, Conv2dOptions::with(1, 1, 4)},
      {{1, 1, 1, 64}, {10, 1, 1, 64}, u8, s8, {}},
      // Sums beyond 2^24, where f32 alone is no longer exact.
      {{1, 4, 4, 512}, {2, 3, 3, 512}, u8, s8, Conv2dOptions::with(1, 1)},
      {{1, 3, 3, 512}, {2, 3, 3, 512}, u8, s8, Conv2dOptions::with(1, 1), true},
      {{1, 3, 3, 301}, {2, 3, 3, 301}, shifted, s8, Conv2dOptions::with(1, 1), true},
  };
  for (const Case& c : cases) {
    for (const bool per_channel : {false, true}) {
      Grids grids(per_channel ? static_cast<size_t>(c.weights[0]) : 1u, c.weights_grid);
      for (size_t i = 0; i < grids.size(); ++i) grids[i].scale *= 1 + 0.3f * static_cast<float>(i);
      const Quantized x = random_codes(c.src, {c.src_grid}, 1, c.largest),
                      w = random_codes(c.weights, grids, 2, c.largest);
      INFO("src ", c.src, " weights ", c.weights);
      const Array y = conv2d(x, w, c.options).value();
      const std::vector<float> expected = reference(x, w, c.options);
      CHECK(same_bits(y.reshape({y.size()}), Array::of(expected)));
    }
  }
}

TEST_CASE("conv2d of codes has the gradients of conv2d of the values, and is one in a trace") {
  const Quantized x = random_codes({2, 5, 5, 3}, {u4}, 3), w = random_codes({4, 3, 3, 3}, Grids(4, even4), 4);
  const Tensor xv = Tensor::leaf(x.value.value()), wv = Tensor::leaf(w.value.value());
  const Conv2dOptions options = Conv2dOptions::with(1, 1);
  const Tensor codes = conv2d(Quantized{xv, x.grids}, Quantized{wv, w.grids}, options);
  const Tensor values = conv2d(xv, wv, options);
  CHECK(difference(codes.value(), values.value()) < 1e-6);
  const Tensor weight = random_normal(values.shape(), Philox(5));
  const Tensors a = grad({sum(codes * weight)}, {xv, wv}), b = grad({sum(values * weight)}, {xv, wv});
  CHECK(same_bits(a[0].value(), b[0].value()));
  CHECK(same_bits(a[1].value(), b[1].value()));

  const Trace t = trace(
      [&](const Tensors& in) {
        return conv2d(Quantized{in[0], x.grids}, w, options);
      },
      {xv});
  const auto* op = dynamic_cast<const Conv2dOp*>(t.outputs[0].node()->op.get());
  REQUIRE(op);
  CHECK(op->options == options);
}

TEST_CASE("conv2d of codes in bf16: exact sums rounded once, and the gradients of the values") {
  for (const int64_t groups : {1, 3}) {
    const Conv2dOptions options = Conv2dOptions::with(1, 1, groups);
    const Shape filters{6, 3, 3, 3 / groups};
    const Grids grids = {even4, {0.05f, 7.5f, 0, 15}, even4, even4, {0.02f, 7.5f, 0, 15}, even4};
    const Quantized x = random_codes({2, 5, 5, 3}, {shifted}, 3), w = random_codes(filters, grids, 4);
    const Tensor wv = Tensor::leaf(w.value.value()), values = Tensor::leaf(x.value.value());
    const Tensor codes = Tensor::leaf(cast(x.integers(), DType::bf16));
    const Quantized src{codes, x.grids, /*codes=*/true}, weights{wv, w.grids};
    CHECK(same_bits(cast(src.integers(), DType::f32), x.integers()));

    const Tensor y = conv2d(src, weights, options), expected = conv2d(values, wv, options);
    for (int64_t i = 0; i < y.size(); ++i) {
      const double exact = expected.value().to_vector()[static_cast<size_t>(i)];
      CHECK(std::abs(y.value().to_vector()[static_cast<size_t>(i)] - exact) <=
            1.001 * 0x1p-8 * std::abs(exact) + 1e-5);
    }

    const Array u = cast(random_normal(expected.shape(), Philox(5)), DType::bf16);
    const Tensors by_values = grad({expected}, {values, wv}, {.grad_outputs = {cast(Tensor(u), DType::f32)}});
    for (const bool create_graph : {false, true}) {
      const Tensors by_codes = grad({conv2d(src, weights, options)}, {codes, wv},
                                    {.create_graph = create_graph, .grad_outputs = {u}});
      CHECK(by_codes[0].dtype() == DType::bf16);
      CHECK(difference(cast(by_codes[0].value(), DType::f32), by_values[0].value()) < 0.01);
      CHECK(difference(by_codes[1].value(), by_values[1].value()) < (create_graph ? 0.01 : 1e-5));
    }
  }
}

TEST_CASE("conv2d of codes refuses what has none") {
  const Quantized x = random_codes({1, 4, 4, 2}, {u4}, 1), w = random_codes({3, 1, 1, 2}, {even4}, 2);
  CHECK_THROWS_AS(conv2d(Quantized{x.value, {}}, w), argument_error);
  CHECK_THROWS_AS(conv2d(x, Quantized{w.value, {}}), argument_error);
  CHECK_THROWS_AS(conv2d(Quantized{x.value, {u4, u4}}, w), argument_error);
  CHECK_THROWS_AS(conv2d(x, Quantized{w.value, {even4, even4}}), argument_error);
  CHECK_THROWS_AS((Quantized{x.value, {}}.integers()), argument_error);
}
