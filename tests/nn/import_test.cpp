// Import recipes: layouts, names, what does not fit.
#include "../../nn/import.h"

#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "../../data/formats/safetensors.h"
#include "../../kernels/movement.h"
#include "../folder.h"
#include "../message.h"

using namespace stairgrad;
using namespace stairgrad::nn;

namespace {

Array normal(const Shape& shape, const std::string& name) {
  return random_normal(shape, Philox(3, stream_of(name)));
}

// The state of a network as PyTorch keeps it.
State pytorch_state(const Model& model, const std::string& prefix) {
  State state;
  for (const auto& [name, array] : model.state()) {
    const Array value = normal(array.shape(), name);
    state[prefix + name] = value.rank() == 4 ? kernels::transpose(value, {0, 3, 1, 2}) : value;
  }
  return state;
}

std::string save(const std::string& path, const State& state) {
  data::save_safetensors(path, {state, {{"layout", "foreign"}}});
  return path;
}

void check_same(const Array& a, const Array& b) {
  CHECK(a.shape() == b.shape());
  CHECK(a.to_vector() == b.to_vector());
}

}  // namespace

TEST_CASE("axes are rearranged by their letters") {
  const Array x = normal({2, 3, 4, 5}, "x");
  check_same(permuted(x, "oihw"), kernels::transpose(x, {0, 2, 3, 1}));
  check_same(permuted(x, "hwio"), kernels::transpose(x, {3, 0, 1, 2}));
  check_same(permuted(x, "hwoi"), kernels::transpose(x, {2, 0, 1, 3}));
  check_same(permuted(permuted(x, "oihw"), "ohwi", "oihw"), x);
  CHECK_THROWS_AS(permuted(x, "oih"), argument_error);
  CHECK_THROWS_AS(permuted(x, "oihx"), argument_error);
  CHECK_THROWS_AS(permuted(x, "oiih"), argument_error);
}

TEST_CASE("PyTorch's states load by name, whatever they are wrapped in") {
  const Folder folder;
  for (const std::string name : {"resnet8", "resnet18_cifar", "mobilenet_v1"})
    for (const std::string prefix : {"", "module.", "state_dict.module.", "model."}) {
      CAPTURE(name);
      CAPTURE(prefix);
      const ModelOptions options{.classes = 7, .width = 0.25};
      State state = pytorch_state(*make_model(name, options), prefix);
      state[prefix + "bn1.num_batches_tracked"] = Array::of<int32_t>({5});
      const Imported imported = import_model("pytorch", save(folder / "w.safetensors", state), name,
                                             {.classes = 10, .width = 0.25});
      CHECK(imported.info.options.classes == 7);  // the file's
      CHECK(imported.info.notes.at("normalisation") == "imagenet");
      for (const auto& [own, array] : imported.model->state()) check_same(array, normal(array.shape(), own));
    }
}

TEST_CASE("other names of the shortcut and the classifier are known") {
  const auto model = make_model("resnet18_cifar", {.width = 0.125});
  State state;
  for (const auto& [own, array] : pytorch_state(*model, "")) {
    std::string name = own;
    if (const size_t at = name.find("downsample"); at != std::string::npos) name.replace(at, 10, "shortcut");
    if (name.starts_with("fc.")) name.replace(0, 2, "linear");
    state[name] = array;
  }
  CHECK(!state.count("layer2.0.downsample.0.weight"));
  const Folder folder;
  CHECK(import_weights("pytorch", save(folder / "w.safetensors", state), *model).none());
}

TEST_CASE("a fully connected layer behind a flattened map is put into our order") {
  const auto model = make_model("vgg_small", {.image_size = 16, .width = 0.0625});
  State state = pytorch_state(*model, "");
  const Array fc = normal({10, 32, 2, 2}, "fc");
  state["fc.weight"] = fc.reshape({10, 128});
  const Folder folder;
  CHECK(import_weights("pytorch", save(folder / "w.safetensors", state), *model).none());
  check_same(model->state().at("fc.weight"), kernels::transpose(fc, {0, 2, 3, 1}));
}

TEST_CASE("weights that are not finite are refused, unless they are wanted") {
  const Folder folder;
  const auto model = make_model("resnet8", {.width = 0.25});
  State state = pytorch_state(*model, "module.");
  state.at("module.bn1.weight").data<float>()[1] = std::numeric_limits<float>::infinity();
  const std::string path = save(folder / "w.safetensors", state);
  const std::string expected =
      path + " (byte 0): 1 of its values is NaN or infinite, the first in module.bn1.weight";
  CHECK(contains(message_of<format_error>([&] { import_weights("pytorch", path, *model); }), expected));
  CHECK(contains(message_of<format_error>([&] { import_model("pytorch", path, "resnet8", {.width = 0.25}); }),
                 expected));
  CHECK(import_weights("pytorch", path, *model, false, NotFinite::accept).none());
  CHECK(std::isinf(model->state().at("bn1.weight").to_vector()[1]));
  import_model("pytorch", path, "resnet8", {.width = 0.25}, NotFinite::accept);
}

TEST_CASE("whatever does not fit is listed, and nothing is changed; or the rest is loaded") {
  const Folder folder;
  const auto model = make_model("resnet8", {.width = 0.25});
  initialise(*model, 1);
  State state = pytorch_state(*model, "module.");
  state.erase("module.bn1.weight");
  state["module.extra.weight"] = Array::zeros({2});
  state["module.conv1.weight"] = Array::zeros({4, 1, 3, 3});
  const std::string path = save(folder / "w.safetensors", state);
  const std::vector<double> before = model->state().at("linear.weight").to_vector();
  CHECK(message_of<format_error>([&] { import_weights("pytorch", path, *model); }) ==
        path +
            " (byte 0): [load_state] the values do not fit the model: missing: bn1.weight; unexpected: "
            "module.extra.weight; of another shape: conv1.weight (got (4,3,3,1), expected (4,3,3,3))");
  CHECK(model->state().at("linear.weight").to_vector() == before);

  const StateMismatch mismatch = import_weights("pytorch", path, *model, /*partial=*/true);
  CHECK(mismatch.missing == std::vector<std::string>{"bn1.weight"});
  CHECK(mismatch.unexpected == std::vector<std::string>{"module.extra.weight"});
  CHECK(mismatch.misshaped.size() == 1);
  CHECK(model->state().at("linear.weight").to_vector() != before);

  state["conv1.weight"] = Array::zeros({4, 3, 3, 3});  // and so it is there twice
  save(path, state);
  CHECK(message_of<format_error>([&] { import_weights("pytorch", path, *model); }) ==
        path + " (byte 0): two of its arrays are conv1.weight");
}

TEST_CASE("Keras's MobileNetV1 has its own names and axes") {
  const Folder folder;
  const ModelOptions options{.image_size = 32, .classes = 5, .width = 0.25};
  const auto model = make_model("mobilenet_v1", options);
  State state;
  const auto layer = [&](const std::string& keras, const std::string& own, const std::vector<int>& axes) {
    const Shape shape = model->state().at(own + ".0.weight").shape();
    state[keras] = kernels::transpose(normal(shape, own + ".0.weight"), axes);
  };
  const auto norm = [&](const std::string& keras, const std::string& own) {
    const Shape shape = model->state().at(own + ".bias").shape();
    state[keras + "/gamma:0"] = normal(shape, own + ".weight");
    state[keras + "/beta:0"] = normal(shape, own + ".bias");
    state[keras + "/moving_mean:0"] = normal(shape, own + ".running_mean");
    state[keras + "/moving_variance:0"] = normal(shape, own + ".running_var");
  };
  layer("conv1/kernel:0", "model.0", {1, 2, 3, 0});
  norm("conv1_bn", "model.0.1");
  for (int i = 1; i <= 13; ++i) {
    const std::string own = text("model.", i);
    layer(text("conv_dw_", i, "/depthwise_kernel:0"), own, {1, 2, 0, 3});
    norm(text("conv_dw_", i, "_bn"), own + ".1");
    const Shape shape = model->state().at(own + ".3.weight").shape();
    state[text("conv_pw_", i, "/kernel:0")] =
        kernels::transpose(normal(shape, own + ".3.weight"), {1, 2, 3, 0});
    norm(text("conv_pw_", i, "_bn"), own + ".4");
  }
  state["conv_preds/kernel:0"] =
      kernels::transpose(normal({5, 256}, "fc.weight"), {1, 0}).reshape({1, 1, 256, 5});
  state["conv_preds/bias:0"] = normal({5}, "fc.bias");

  const std::string path = save(folder / "w.safetensors", state);
  const Imported imported = import_model("keras", path, "mobilenet_v1", options);
  for (const auto& [own, array] : imported.model->state()) check_same(array, normal(array.shape(), own));
  CHECK(imported.info.options.style == ConvStyle{.same_padding = true, .eps = 1e-3});

  state["conv_pw_x_bn/gamma:0"] = state["conv_pw_y/kernel:0"] = state["dense/kernel:0"] = Array::zeros({1});
  save(path, state);
  CHECK(message_of<format_error>([&] {
          import_model("keras", path, "mobilenet_v1", options);
        }).find("unexpected: conv_pw_x_bn/gamma:0 conv_pw_y/kernel:0 dense/kernel:0") != std::string::npos);
}

TEST_CASE("an imported model is saved and loaded with its style") {
  const Folder folder;
  const ModelOptions options{
      .image_size = 32, .width = 0.25, .style = {.folded = true, .same_padding = true}};
  const auto source = make_model("mobilenet_v2", options);
  const std::string path = save(folder / "w.safetensors", pytorch_state(*source, ""));
  const Imported imported = import_model("tensorflow-folded", path, "mobilenet_v2", options);
  save_model(folder / "m.safetensors", *imported.model, imported.info);
  CHECK(read_model_info(folder / "m.safetensors").options.style == options.style);
  const auto again = load_model(folder / "m.safetensors");
  const Array x = normal(again->input_shape(), "x");
  const NoGrad no_grad;
  check_same((*again)(x).value(), (*imported.model)(x).value());
}

TEST_CASE("TensorFlow's padding puts the odd pixel at the bottom and the right") {
  // A stem whose kernel is one at its first element shows where the window begins.
  for (const bool same : {false, true}) {
    const auto model =
        make_model("mobilenet_v2", {.in_channels = 1, .style = {.folded = true, .same_padding = same}});
    model->state().at("features.0.0.weight").data<float>()[0] = 1;
    Array x(model->input_shape());
    for (int64_t i = 0; i < x.size(); ++i) x.data<float>()[i] = static_cast<float>(i) / 1024;
    const NoGrad no_grad;
    const Array y = model->forward(x, 0, 1).value();
    REQUIRE(y.shape() == Shape{1, 16, 16, 32});
    const auto at = [&](int64_t row, int64_t column) {
      return 1024 * y.data<float>()[(row * 16 + column) * 32];
    };
    CHECK(at(0, 0) == 0);
    CHECK(at(0, 1) == (same ? 2 : 0));
    CHECK(at(1, 1) == (same ? 2 * 32 + 2 : 32 + 1));
  }
}

TEST_CASE("an unknown recipe lists the known ones") {
  CHECK_THROWS_WITH_AS(import_recipe("caffe"),
                       "[import] got the recipe 'caffe', expected one of: pytorch tensorflow-folded keras",
                       argument_error);
}
