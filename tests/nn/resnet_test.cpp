// The residual networks of the zoo: size, shape, blocks, and the gradient of a whole network.
#include "../../nn/resnet.h"

#include <doctest/doctest.h>

#include <cmath>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../autograd/recorder.h"
#include "../message.h"

using namespace stairgrad;
using namespace stairgrad::nn;

namespace {

Array normal(Shape shape, uint64_t stream, DType dtype = DType::f32) {
  return random_normal(shape, Philox(21, stream), 1, dtype);
}

// Parameters by the paper's formula: convolutions 3x3 without bias, two numbers for each normalised channel.
int64_t expected_parameters(int64_t blocks, Shortcut shortcut) {
  int64_t count = 3 * 16 * 9 + 2 * 16, in = 16;
  for (const int64_t width : {16, 32, 64})
    for (int64_t i = 0; i < blocks; ++i, in = width) {
      count += (in + width) * width * 9 + 4 * width;
      if (in != width && shortcut == Shortcut::B) count += in * width + 2 * width;
    }
  return count + 64 * 10 + 10;
}

}  // namespace

TEST_CASE("numbers of parameters") {
  CHECK(make_model("resnet20")->parameter_count() == 269'722);
  for (const int64_t depth : {8, 14, 20, 32, 44, 56, 110}) {
    CAPTURE(depth);
    CHECK(make_model(text("resnet", depth))->parameter_count() ==
          expected_parameters((depth - 2) / 6, Shortcut::A));
    CHECK(make_model(text("resnet", depth, "b"))->parameter_count() ==
          expected_parameters((depth - 2) / 6, Shortcut::B));
  }
}

TEST_CASE("options reach the network") {
  const auto model = make_model("resnet8", {.in_channels = 1, .image_size = 28, .classes = 7, .width = 0.5});
  CHECK(model->input_shape(3) == Shape{3, 28, 28, 1});
  CHECK(model->forward(normal({3, 28, 28, 1}, 0)).shape() == Shape{3, 7});
  CHECK(model->state().at("conv1.weight").shape() == Shape{8, 3, 3, 1});
}

TEST_CASE("an unknown name lists the known ones") {
  const std::string message = message_of<argument_error>([] { make_model("resnet9"); });
  for (const std::string& name : model_names()) CHECK(contains(message, ' ' + name));
}

TEST_CASE("blocks compose to the network") {
  const auto model = make_model("resnet14");
  initialise(*model, 1);
  model->eval();
  const Tensor x(normal({2, 32, 32, 3}, 0));
  const std::vector<double> whole = model->forward(x).value().to_vector();
  const size_t end = model->blocks().size();
  REQUIRE(end == 8);
  CHECK(model->blocks()[0].name == "stem");
  CHECK(model->blocks()[3].name == "layer2.0");
  CHECK(model->blocks()[model->head()].name == "head");
  CHECK(model->forward(x, 0, model->head()).shape() == Shape{2, 8, 8, 64});
  for (size_t cut = 0; cut <= end; ++cut)
    CHECK(model->forward(model->forward(x, 0, cut), cut, end).value().to_vector() == whole);
  CHECK_THROWS_AS(model->forward(x, 3, 2), argument_error);
  CHECK_THROWS_AS(model->forward(x, 0, end + 1), argument_error);
}

TEST_CASE("shortcut A takes every second pixel and puts zeros around the channels") {
  BasicBlock block(2, 6, 2, Shortcut::A);
  initialise(block, 1);
  Array gamma = block.state().at("bn2.weight");
  gamma.assign(Array::zeros({6}));  // the residual vanishes
  const Array x = random_uniform({1, 4, 4, 2}, Philox(1), 0, 1), y = block(x).value();
  REQUIRE(y.shape() == Shape{1, 2, 2, 6});
  for (int64_t h = 0; h < 2; ++h)
    for (int64_t w = 0; w < 2; ++w)
      for (int64_t c = 0; c < 6; ++c)
        CHECK(y.data<float>()[(h * 2 + w) * 6 + c] ==
              (c == 2 || c == 3 ? x.data<float>()[(2 * h * 4 + 2 * w) * 2 + c - 2] : 0.0f));
}

TEST_CASE("traces name the layers") {
  const auto model = make_model("resnet8");
  initialise(*model, 0);
  model->eval();
  const std::string structure =
      trace([&](const Tensors& in) { return (*model)(in[0]); }, {normal(model->input_shape(), 0)}).str();
  for (const char* line : {"conv1 conv2d (1,32,32,3) (16,3,3,3) -> (1,32,32,16)",
                           "layer2.0.conv1 conv2d (1,32,32,16) (32,3,3,16) -> (1,16,16,32)",
                           "layer3.0.bn2 batch_norm", "linear linear"})
    CHECK_MESSAGE(structure.find(line) != std::string::npos, line, " is not in\n", structure);
}

TEST_CASE("the gradient of a whole ResNet-8 agrees with finite differences in f64") {
  for (const bool training : {true, false}) {
    CAPTURE(training);
    const auto model = make_model("resnet8b", {.image_size = 8, .classes = 5, .width = 0.25});
    initialise(*model, 2);
    model->to(DType::f64);
    model->train(training);
    const Array x = normal(model->input_shape(4), 0, DType::f64), labels = Array::of<int32_t>({0, 3, 4, 1});
    const auto loss = [&] { return cross_entropy((*model)(x), labels, 0.1); };

    Tensors parameters;
    for (const NamedTensor& p : model->parameters()) parameters.push_back(p.tensor);
    const Tensors gradients = grad({loss()}, parameters);
    // Along one random direction for each parameter: a wrong element anywhere shows.
    for (size_t i = 0; i < parameters.size(); ++i) {
      CAPTURE(parameters[i].name());
      CAPTURE(i);
      Array w = parameters[i].value();
      const Array start = w.clone(), direction = normal(w.shape(), 100 + i, DType::f64);
      const auto at = [&](double step) {
        for (int64_t j = 0; j < w.size(); ++j)
          w.data<double>()[j] = start.data<double>()[j] + step * direction.data<double>()[j];
        const NoGrad no_grad;
        return loss().item();
      };
      const double h = 1e-5, numeric = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
      w.assign(start);
      const double exact = sum(gradients[i] * Tensor(direction)).item();
      CHECK(std::abs(exact - numeric) <= 1e-6 * std::max(1.0, std::abs(exact)));
    }
  }
}
