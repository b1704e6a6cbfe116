// The networks of the zoo: published sizes, blocks, options.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "../../autograd/recorder.h"
#include "../../nn/checkpoint.h"
#include "../../nn/model.h"
#include "../../quant/cost.h"
#include "../folder.h"

using namespace stairgrad;
using namespace stairgrad::nn;

namespace {

int64_t macs_of(Model& model) {
  const Evaluation evaluation(model);
  return quant::total_macs(quant::count_cost(
      trace([&](const Tensors& in) { return model(in[0]); }, {Array::zeros(model.input_shape())})));
}

struct Published {
  std::string name;
  int64_t parameters, macs;
};

// As torchvision, Keras and the papers give them; multiply-accumulates are those of convolutions and fully
// connected layers at the usual size.
const std::vector<Published> published = {
    {"resnet20", 269'722, 40'551'040},        {"resnet18", 11'689'512, 1'814'073'344},
    {"resnet34", 21'797'672, 3'663'761'408},  {"resnet50", 25'557'032, 4'089'184'256},
    {"mobilenet_v1", 4'231'976, 568'740'352}, {"mobilenet_v2", 3'504'872, 300'774'272}};

}  // namespace

TEST_CASE("parameters and multiply-accumulates are the published ones") {
  for (const Published& network : published) {
    CAPTURE(network.name);
    const auto model = make_model(network.name);
    CHECK(model->parameter_count() == network.parameters);
    CHECK(macs_of(*model) == network.macs);
  }
}

TEST_CASE("every network runs block by block, with its options") {
  for (const std::string& name : model_names()) {
    CAPTURE(name);
    const auto model = make_model(name, {.in_channels = 2, .image_size = 32, .classes = 7, .width = 0.5});
    initialise(*model, 1);
    model->eval();
    const Tensor x(random_normal(model->input_shape(2), Philox(1)));
    REQUIRE(x.shape() == Shape{2, 32, 32, 2});
    const Tensor features = model->forward(x, 0, model->head());
    CHECK(features.rank() == 4);
    const Tensor logits = model->forward(features, model->head(), model->blocks().size());
    CHECK(logits.shape() == Shape{2, 7});
    CHECK(logits.value().to_vector() == (*model)(x).value().to_vector());
    CHECK(model->blocks().front().name == "stem");
    CHECK(model->blocks().back().name == "head");
  }
}

TEST_CASE("folded networks have a bias for each convolution and no batch norm, also in bf16") {
  for (const std::string& name : model_names()) {
    CAPTURE(name);
    const auto model = make_model(name, {.width = 0.25, .style = {.folded = true}});
    CHECK(model->buffers().empty());
    size_t weights = 0, biases = 0;
    for (const NamedTensor& p : model->parameters()) (p.tensor.rank() == 1 ? biases : weights)++;
    CHECK(weights == biases);
    initialise(*model, 1);
    const Array images = random_normal(model->input_shape(), Philox(2));
    const Array logits = model->forward(images).value();
    CHECK(logits.shape() == Shape{1, 10});
    const Array narrow = model->forward(cast(images, DType::bf16)).value();
    REQUIRE(narrow.dtype() == DType::bf16);
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < 10; ++i) {
      const double expected = logits.data<float>()[i];
      worst = std::max(worst, std::abs(narrow.data<bf16>()[i] - expected));
      largest = std::max(largest, std::abs(expected));
    }
    CHECK(worst < 0.3 * largest);
  }
}

TEST_CASE("options outside their range are refused") {
  for (const ModelOptions& options :
       {ModelOptions{.in_channels = 0}, ModelOptions{.image_size = -1}, ModelOptions{.classes = 0},
        ModelOptions{.width = 0}, ModelOptions{.image_size = 48, .style = {.same_padding = true}}})
    CHECK_THROWS_AS(make_model("resnet8", options), argument_error);
  CHECK_THROWS_AS(usual_options("resnet9"), argument_error);
}

TEST_CASE("hardtanh in place of ReLU: maps within [-1, 1], kept by model files") {
  const Folder folder;
  for (const char* name : {"resnet8", "vgg_small", "resnet18_cifar"}) {
    nn::ModelOptions options = nn::usual_options(name);
    options.width = 0.25;
    options.style.activation = nn::Activation::hardtanh;
    const auto model = nn::make_model(name, options);
    nn::initialise(*model, 2);
    model->eval();
    const Array images = random_normal(model->input_shape(2), Philox(3), 3);
    const std::vector<double> map = model->forward(images, 0, model->head()).value().to_vector();
    CHECK(std::ranges::all_of(map, [](double x) { return x >= -1 && x <= 1; }));
    CHECK(std::ranges::any_of(map, [](double x) { return x < 0; }));

    const std::string path = folder / "hardtanh.safetensors";
    nn::save_model(path, *model, {.model = name, .options = options, .notes = {}});
    const auto loaded = nn::load_model(path);
    loaded->eval();
    CHECK(loaded->forward(images).value().to_vector() == model->forward(images).value().to_vector());
  }
  CHECK_THROWS_AS(nn::parse_activation("tanh"), argument_error);
}
