// Grad-CAM: what it is at the last layer, and its own gradient at an inner one.
#include "../../nn/attribution.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../autograd/recorder.h"
#include "../../nn/optimiser.h"

using namespace stairgrad;
using namespace stairgrad::nn;

namespace {

Array normal(Shape shape, uint64_t stream, DType dtype = DType::f64) {
  return random_normal(shape, Philox(31, stream), 1, dtype);
}

std::unique_ptr<Model> small_network(DType dtype) {
  auto model = make_model("resnet8", {.image_size = 8, .classes = 4, .width = 0.25});
  initialise(*model, 3);
  model->to(dtype);
  model->eval();
  return model;
}

const std::vector<int32_t> classes = {2, 0, 3};

}  // namespace

TEST_CASE("at the last feature map Grad-CAM is CAM") {
  const auto model = small_network(DType::f64);
  const Tensor features = model->forward(normal(model->input_shape(3), 0), 0, model->head());
  const Tensor logits = model->forward(features, model->head(), model->blocks().size());
  const Array map = grad_cam(features, logits, classes).value();
  REQUIRE(map.shape() == Shape{3, 2, 2});

  // CAM (Zhou et al., CVPR'16): the features weighted by the row of the classifier, here clipped at zero.
  const std::vector<double> f = features.value().to_vector(),
                            w = model->state().at("linear.weight").to_vector();
  double worst = 0, largest = 0;
  for (size_t i = 0; i < 12; ++i) {
    double sum = 0;
    for (size_t c = 0; c < 16; ++c) sum += f[i * 16 + c] * w[static_cast<size_t>(classes[i / 4]) * 16 + c];
    worst = std::max(worst, std::abs(map.to_vector()[i] - std::max(0.0, sum)));
    largest = std::max(largest, sum);
  }
  CHECK(largest > 0.1);
  CHECK(worst < 1e-9);
}

TEST_CASE("CAM equals Grad-CAM at the last layer, and so do its gradients: first order is enough there") {
  const auto model = small_network(DType::f64);
  const Array start = normal({3, 2, 2, 16}, 4), target = normal({3, 2, 2}, 5);
  Tensor weights;
  for (const NamedTensor& p : model->parameters())
    if (p.name == "linear.weight") weights = p.tensor;
  const Tensor features = Tensor::leaf(start);
  const Tensor logits = model->forward(features, model->head(), model->blocks().size());
  const Tensor by_gradient = grad_cam(features, logits, classes, /*create_graph=*/true),
               by_weights = class_activation_map(features, weights, classes);
  const auto close = [](const Tensor& a, const Tensor& b) {
    const std::vector<double> x = a.value().to_vector(), y = b.value().to_vector();
    double worst = 0, most = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      worst = std::max(worst, std::abs(x[i] - y[i]));
      most = std::max(most, std::abs(x[i]));
    }
    CHECK(most > 1e-3);
    CHECK(worst < 1e-12 * std::max(1.0, most));
  };
  close(by_gradient, by_weights);
  const Tensors second = grad({mse(by_gradient, target)}, {features, weights}),
                first = grad({mse(by_weights, target)}, {features, weights});
  close(second[0], first[0]);
  close(second[1], first[1]);
}

TEST_CASE("a model is explained after any block, for its own class or for others") {
  const auto model = small_network(DType::f64);
  const Array x = normal(model->input_shape(3), 0);
  CHECK(blocks_until(*model, "") == model->head());
  CHECK(blocks_until(*model, "layer2.0") == 3);
  CHECK_THROWS_WITH_AS(blocks_until(*model, "layer2.O"), doctest::Contains("did you mean 'layer2.0'"),
                       argument_error);
  CHECK_THROWS_AS(blocks_until(*model, "head"), argument_error);
  const Attribution own = attribute(*model, x, 3), others = attribute(*model, x, 3, classes);
  CHECK(own.map.shape() == Shape{3, 4, 4});
  CHECK(own.classes == top_classes(own.logits.value()));
  CHECK(others.classes == classes);
  CHECK(own.logits.value().to_vector() == others.logits.value().to_vector());
  CHECK(own.map.value().to_vector() != others.map.value().to_vector());
  CHECK_FALSE(own.map.requires_grad());
  const Attribution taped = attribute(*model, x, 3, {}, /*create_graph=*/true);
  CHECK(taped.map.requires_grad());
  CHECK(taped.map.value().to_vector() == own.map.value().to_vector());
  CHECK_THROWS_AS(attribute(*model, x, model->head() + 1), argument_error);
}

TEST_CASE("a loss on an inner attribution map has the right gradient, which takes true second order") {
  const auto model = small_network(DType::f64);
  const Array x = normal(model->input_shape(3), 0), target = normal({3, 4, 4}, 1);
  const auto loss = [&] {
    const Tensor features = model->forward(x, 0, 3);  // after layer2
    const Tensor logits = model->forward(features, 3, model->blocks().size());
    return mse(grad_cam(features, logits, classes, /*create_graph=*/true), target);
  };
  Tensors parameters;
  std::vector<std::string> names;
  for (const NamedTensor& p : model->parameters()) parameters.push_back(p.tensor), names.push_back(p.name);
  const Tensors gradients = grad({loss()}, parameters, {.allow_unused = true});
  double of_later_layers = 0;
  for (size_t i = 0; i < parameters.size(); ++i) {
    CAPTURE(names[i]);
    Array w = parameters[i].value();
    const Array start = w.clone(), direction = normal(w.shape(), 100 + i);
    const auto at = [&](double step) {
      for (int64_t j = 0; j < w.size(); ++j)
        w.data<double>()[j] = start.data<double>()[j] + step * direction.data<double>()[j];
      return loss().item();
    };
    const double h = 1e-5, numeric = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
    w.assign(start);
    const double exact = sum(gradients[i] * Tensor(direction)).item();
    CHECK(std::abs(exact - numeric) <= 1e-6 * std::max(1.0, std::abs(exact)));
    if (names[i].starts_with("layer3")) of_later_layers += std::abs(exact);
  }
  CHECK(of_later_layers > 1e-3);  // these reach the map through its weights alone
}

TEST_CASE("a loss on the attribution at layer3 of ResNet-18 trains") {
  const auto model = make_model("resnet18_cifar", {.image_size = 16, .classes = 4, .width = 0.125});
  initialise(*model, 3);
  const auto& blocks = model->blocks();
  const auto named = [](const Block& block) { return block.name == "layer3.1"; };
  const auto after =
      static_cast<size_t>(std::find_if(blocks.begin(), blocks.end(), named) - blocks.begin()) + 1;
  REQUIRE(after < model->head());
  const Tensor images = normal(model->input_shape(8), 0, DType::f32);
  const std::vector<int32_t> chosen = {0, 1, 2, 3, 0, 1, 2, 3};
  Array target = Array::zeros({8, 4, 4}, DType::f32);  // look at the corner
  for (int64_t i = 0; i < 8; ++i) target.data<float>()[i * 16] = 1;
  SGD optimiser({{model->parameters(), 1, 0}}, 0.9, /*nesterov=*/true);
  std::vector<double> losses;
  for (int step = 0; step < 40; ++step) {
    const Tensor features = model->forward(images, 0, after);
    const Tensor logits = model->forward(features, after, blocks.size());
    const Tensor map = grad_cam(features, logits, chosen, /*create_graph=*/true);
    const Tensor loss = sum(square(l2_normalise(map, {1, 2}) - target)) / 8;
    optimiser.step(grad({loss}, optimiser.parameters(), {.allow_unused = true}), 0.02);
    losses.push_back(loss.item());
  }
  CHECK(losses.front() > 0.8);
  CHECK(losses.back() < 0.5 * losses.front());
}

TEST_CASE("attribution maps are scaled to one and leave the model as it was") {
  const auto model = small_network(DType::f32);
  model->train();
  const Array images = normal(model->input_shape(5), 2, DType::f32);
  const NoGrad no_grad;
  const Array map = attribution_map(*model, images);
  CHECK(map.shape() == Shape{5, 2, 2});
  for (int64_t i = 0; i < 5; ++i) {
    const std::vector<double> one = map.slice(i, 1).to_vector();
    const double largest = *std::max_element(one.begin(), one.end());
    CHECK((largest == 0 || largest == 1));
    CHECK(*std::min_element(one.begin(), one.end()) >= 0);
  }
  CHECK(model->training());
  CHECK(attribution_map(*model, images).to_vector() == map.to_vector());
}

TEST_CASE("wrong arguments are named") {
  const Tensor features = Tensor::leaf(normal({2, 3, 3, 4}, 0));
  const Tensor logits = sum(features, {1, 2});
  CHECK_THROWS_AS(grad_cam(features, logits, {1}), argument_error);
  CHECK_THROWS_AS(grad_cam(features, logits, {1, 4}), argument_error);
  CHECK_THROWS_AS(grad_cam(logits, logits, {1, 2}), argument_error);
}
