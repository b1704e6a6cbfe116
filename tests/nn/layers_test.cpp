// Layers against plain formulas, in double.
#include "../../nn/layers.h"

#include <doctest/doctest.h>

#include <cmath>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"

using namespace stairgrad;
using namespace stairgrad::nn;

namespace {

Array normal(Shape shape, uint64_t stream, double scale = 1, DType dtype = DType::f32) {
  return random_normal(shape, Philox(11, stream), scale, dtype);
}

void check_near(const Array& got, const std::vector<double>& expected, double tolerance) {
  const std::vector<double> values = got.to_vector();
  REQUIRE(values.size() == expected.size());
  double worst = 0;
  for (size_t i = 0; i < values.size(); ++i) worst = std::max(worst, std::abs(values[i] - expected[i]));
  CHECK(worst <= tolerance);
}

struct Moments {
  double mean, var;  // biased
};

// Of channel c of x (..., channels).
Moments moments(const Array& x, int64_t c) {
  const std::vector<double> values = x.to_vector();
  const auto channels = static_cast<size_t>(x.shape().back());
  double sum = 0, squares = 0, n = 0;
  for (size_t i = static_cast<size_t>(c); i < values.size(); i += channels) sum += values[i], ++n;
  for (size_t i = static_cast<size_t>(c); i < values.size(); i += channels)
    squares += (values[i] - sum / n) * (values[i] - sum / n);
  return {sum / n, squares / n};
}

}  // namespace

TEST_CASE("Conv2d is a correlation with bias") {
  Conv2d conv(3, 4, 3, Conv2dOptions::with(2, 1), /*bias=*/true);
  initialise(conv, 1);
  Array bias = conv.bias.value();
  bias.assign(normal({4}, 9));
  const Array x = normal({2, 5, 6, 3}, 1), y = conv.forward(x).value();
  REQUIRE(y.shape() == Shape{2, 3, 3, 4});
  const auto in = x.to_vector(), w = conv.weight.value().to_vector(), b = bias.to_vector();
  std::vector<double> expected;
  for (int n = 0; n < 2; ++n)
    for (int oh = 0; oh < 3; ++oh)
      for (int ow = 0; ow < 3; ++ow)
        for (int o = 0; o < 4; ++o) {
          double sum = b[static_cast<size_t>(o)];
          for (int kh = 0; kh < 3; ++kh)
            for (int kw = 0; kw < 3; ++kw)
              for (int c = 0; c < 3; ++c) {
                const int h = 2 * oh + kh - 1, v = 2 * ow + kw - 1;
                if (h < 0 || h >= 5 || v < 0 || v >= 6) continue;
                sum += in[static_cast<size_t>(((n * 5 + h) * 6 + v) * 3 + c)] *
                       w[static_cast<size_t>(((o * 3 + kh) * 3 + kw) * 3 + c)];
              }
          expected.push_back(sum);
        }
  check_near(y, expected, 1e-5);
}

TEST_CASE("Linear is x w^T + b") {
  Linear linear(5, 3);
  initialise(linear, 1);
  Array bias = linear.bias.value();
  bias.assign(normal({3}, 9));
  const Array x = normal({2, 5}, 1);
  const auto in = x.to_vector(), w = linear.weight.value().to_vector(), b = bias.to_vector();
  std::vector<double> expected;
  for (size_t n = 0; n < 2; ++n)
    for (size_t o = 0; o < 3; ++o) {
      double sum = b[o];
      for (size_t i = 0; i < 5; ++i) sum += in[n * 5 + i] * w[o * 5 + i];
      expected.push_back(sum);
    }
  check_near(linear.forward(x).value(), expected, 1e-5);
}

TEST_CASE("BatchNorm2d in training uses the batch and moves the running statistics as PyTorch does") {
  BatchNorm2d bn(3, 1e-3, 0.2);
  initialise(bn, 0);
  Array gamma = bn.weight.value(), beta = bn.bias.value();
  gamma.assign(Array::of<float>({1.5f, -0.5f, 2}));
  beta.assign(Array::of<float>({0.1f, 0.2f, -0.3f}));
  Array x = normal({4, 3, 2, 3}, 1, 2);
  for (int64_t i = 0; i < x.size(); i += 3) x.data<float>()[i] += 5;  // channel 0 is off centre
  const Array y = bn(x).value();
  const auto in = x.to_vector();
  std::vector<double> expected(in.size()), mean, var;
  for (size_t c = 0; c < 3; ++c) {
    const Moments m = moments(x, static_cast<int64_t>(c));
    const double n = static_cast<double>(in.size()) / 3;
    mean.push_back(0.2 * m.mean);                    // from 0
    var.push_back(0.8 + 0.2 * m.var * n / (n - 1));  // from 1, unbiased
    for (size_t i = c; i < in.size(); i += 3)
      expected[i] = (in[i] - m.mean) / std::sqrt(m.var + 1e-3) * gamma.to_vector()[c] + beta.to_vector()[c];
  }
  check_near(y, expected, 2e-5);
  check_near(bn.running_mean, mean, 1e-6);
  check_near(bn.running_var, var, 1e-6);

  bn.eval();
  const auto running_mean = bn.running_mean.to_vector(), running_var = bn.running_var.to_vector();
  for (size_t i = 0; i < in.size(); ++i)
    expected[i] =
        (in[i] - running_mean[i % 3]) / std::sqrt(running_var[i % 3] + 1e-3) * gamma.to_vector()[i % 3] +
        beta.to_vector()[i % 3];
  check_near(bn(x).value(), expected, 2e-5);
}

TEST_CASE("the fused forms of BatchNorm2d equal their parts") {
  for (const bool training : {true, false}) {
    BatchNorm2d bn(4);
    initialise(bn, 0);
    Array gamma = bn.weight.value();
    gamma.assign(normal({4}, 3));
    bn.train(training);
    const Array x = normal({3, 2, 2, 4}, 1), skip = normal({3, 2, 2, 4}, 2);
    check_near(bn.relu(x).value(), relu(bn(x)).value().to_vector(), 1e-6);
    check_near(bn.add_relu(x, skip).value(), relu(bn(x) + Tensor(skip)).value().to_vector(), 1e-6);
  }
}

TEST_CASE("a batch of one pixel has no unbiased variance and stays finite") {
  BatchNorm2d bn(2);
  initialise(bn, 0);
  bn(normal({1, 1, 1, 2}, 1));
  for (const double v : bn.running_var.to_vector()) CHECK(v == doctest::Approx(0.9));
}

TEST_CASE("evaluation changes no state") {
  Sequential net({std::make_shared<Conv2d>(2, 3, 3, Conv2dOptions::with(1, 1)),
                  std::make_shared<BatchNorm2d>(3), std::make_shared<ReLU>(),
                  std::make_shared<MaxPool2d>(Pool2dOptions::with(2, 2)), std::make_shared<GlobalAvgPool>(),
                  std::make_shared<Linear>(3, 4)});
  initialise(net, 1);
  net.eval();
  std::vector<std::pair<std::vector<double>, uint64_t>> before;
  for (const auto& [name, array] : net.state()) before.emplace_back(array.to_vector(), array.version());
  const Tensor y = net(normal({2, 4, 4, 2}, 1));
  grad(sum(y), net.parameters()[0].tensor);
  size_t i = 0;
  for (const auto& [name, array] : net.state()) {
    CHECK(array.to_vector() == before[i].first);
    CHECK(array.version() == before[i++].second);
  }
}

TEST_CASE("pooling layers") {
  const Array x = Array::of<float>({1, 2, 3, 4, 5, 6, 7, 8}, {1, 2, 4, 1});
  CHECK(MaxPool2d(Pool2dOptions::with(2, 2)).forward(x).value().to_vector() == std::vector<double>{6, 8});
  CHECK(AvgPool2d(Pool2dOptions::with(2, 2)).forward(x).value().to_vector() == std::vector<double>{3.5, 5.5});
  const Tensor mean = GlobalAvgPool().forward(x);
  CHECK(mean.shape() == Shape{1, 1});
  CHECK(mean.value().to_vector() == std::vector<double>{4.5});
}

TEST_CASE("activations in bf16 go with parameters in f32") {
  Sequential net({std::make_shared<Conv2d>(8, 16, 3, Conv2dOptions::with(1, 1)),
                  std::make_shared<BatchNorm2d>(16), std::make_shared<ReLU>(),
                  std::make_shared<GlobalAvgPool>(), std::make_shared<Linear>(16, 4)});
  initialise(net, 1);
  const Array x = normal({4, 6, 6, 8}, 1);
  const Array exact = net(x).value();
  const Tensor y = net(Tensor(cast(x, DType::bf16)));
  CHECK(y.dtype() == DType::bf16);
  check_near(cast(y.value(), DType::f32), exact.to_vector(), 0.03);
  Tensors parameters;
  for (const NamedTensor& p : net.parameters()) parameters.push_back(p.tensor);
  for (const Tensor& g : grad({sum(y)}, parameters)) CHECK(g.dtype() == DType::f32);
}
