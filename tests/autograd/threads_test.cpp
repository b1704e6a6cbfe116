// Results do not depend on the number of threads: f32 values and gradients are the same bits, at sizes where
// the kernels work in parallel.
#include <doctest/doctest.h>

#include <cstring>

#include "../../autograd/ops.h"
#include "common.h"

using namespace stairgrad;

namespace {

struct Case {
  const char* label;
  TensorFunction function;
  std::vector<Shape> inputs;
};

std::vector<Case> cases() {
  const Shape image{8, 32, 32, 16}, channels{16}, matrix{512, 513};
  const auto conv = [](int64_t stride, int64_t groups) {
    return [=](const Tensors& t) { return conv2d(t[0], t[1], Conv2dOptions::with(stride, 1, groups)); };
  };
  const auto norm = [](bool relu, bool training) {
    return [=](const Tensors& t) {
      const BatchNormOptions options{1e-5, relu};
      if (training) return batch_norm_train(t[0], t[1], t[2], options, t[3]).y;
      const Tensor mean = Array::zeros({16}), var = Array::full({16}, 1);
      return batch_norm_eval(t[0], t[1], t[2], mean, var, options, t[3]);
    };
  };
  return {
      {"add", [](const Tensors& t) { return t[0] + t[1]; }, {image, image}},
      {"add, broadcast", [](const Tensors& t) { return t[0] + t[1]; }, {image, channels}},
      {"mul, broadcast", [](const Tensors& t) { return t[0] * t[1]; }, {image, channels}},
      {"div", [](const Tensors& t) { return t[0] / (2 + square(t[1])); }, {image, image}},
      {"tanh", [](const Tensors& t) { return tanh(t[0]); }, {image}},
      {"sigmoid", [](const Tensors& t) { return sigmoid(t[0]); }, {image}},
      {"relu", [](const Tensors& t) { return relu(t[0]); }, {image}},
      {"clamp", [](const Tensors& t) { return clamp(t[0], -1, 0.5); }, {image}},
      {"sum, all", [](const Tensors& t) { return sum(t[0] * t[0]); }, {image}},
      {"sum, rows",
       [](const Tensors& t) {
         return sum(t[0] * t[0], {0, 1, 2});
       },
       {image}},
      {"sum, last", [](const Tensors& t) { return sum(t[0] * t[0], {-1}); }, {image}},
      {"max",
       [](const Tensors& t) {
         return max(t[0], {1, 2});
       },
       {image}},
      {"softmax", [](const Tensors& t) { return softmax(t[0]); }, {matrix}},
      {"log_softmax", [](const Tensors& t) { return log_softmax(t[0], {0}); }, {matrix}},
      {"transpose",
       [](const Tensors& t) {
         return transpose(t[0], {0, 3, 1, 2});
       },
       {image}},
      {"slice", [](const Tensors& t) { return slice(t[0], 1, 3, 30); }, {image}},
      {"sort", [](const Tensors& t) { return sort(t[0]).values; }, {matrix}},
      {"dropout", [](const Tensors& t) { return dropout(t[0], 0.3, Philox(1)); }, {image}},
      {"matmul", [](const Tensors& t) { return matmul(t[0], t[1], false, true); }, {matrix, {300, 513}}},
      {"linear", [](const Tensors& t) { return linear(t[0], t[1], t[2]); }, {matrix, {100, 513}, {100}}},
      {"conv2d 3x3", conv(1, 1), {image, {32, 3, 3, 16}}},
      {"conv2d 3x3 stride 2", conv(2, 1), {image, {32, 3, 3, 16}}},
      {"conv2d depthwise", conv(1, 16), {image, {16, 3, 3, 1}}},
      {"batch_norm train", norm(false, true), {image, channels, channels, image}},
      {"batch_norm train relu", norm(true, true), {image, channels, channels, image}},
      {"batch_norm eval relu", norm(true, false), {image, channels, channels, image}},
      {"max_pool2d",
       [](const Tensors& t) { return max_pool2d(t[0], Pool2dOptions::with(3, 2, 1)); },
       {image}},
      {"avg_pool2d", [](const Tensors& t) { return avg_pool2d(t[0], Pool2dOptions::with(2, 2)); }, {image}},
      {"global_avg_pool", [](const Tensors& t) { return global_avg_pool(t[0]); }, {image}},
      {"resize_bilinear", [](const Tensors& t) { return resize_bilinear(t[0], 48, 20); }, {image}},
  };
}

}  // namespace

TEST_CASE("threads: f32 values and gradients are the same with 1, 2 and 3 threads") {
  for (const Case& c : cases()) {
    INFO(std::string(c.label));
    Tensors inputs;
    for (size_t i = 0; i < c.inputs.size(); ++i)
      inputs.push_back(Tensor::leaf(random_normal(c.inputs[i], Philox(11, i))));
    Arrays one;
    {
      const ThreadsScope scope(1);
      one = value_and_gradients(c.function, inputs, 3);
    }
    for (const int count : {2, 3}) {
      const ThreadsScope scope(count);
      const Arrays several = value_and_gradients(c.function, inputs, 3);
      REQUIRE(one.size() == several.size());
      for (size_t i = 0; i < one.size(); ++i) {
        CAPTURE(count);
        CAPTURE(i);
        CHECK(std::memcmp(one[i].raw(), several[i].raw(), one[i].bytes()) == 0);
      }
    }
  }
}
