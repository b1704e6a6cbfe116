// Networks and data from the options: where the weights come from, and what part of a picture is seen.
#include "../../examples/common/task.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <limits>

#include "../../data/formats/safetensors.h"
#include "../../examples/common/quantization.h"
#include "../../kernels/movement.h"
#include "../folder.h"

using namespace stairgrad;
using namespace stairgrad::examples;

namespace {

TaskOptions small_task() {
  TaskOptions options;
  options.model = "resnet8";
  options.dataset = "synthetic";
  options.width = 0.25;
  options.limit = 20;
  return options;
}

}  // namespace

TEST_CASE("a task starts from initial values, a model file, or weights of another framework") {
  const Folder folder;
  TaskOptions options = small_task();
  const Task fresh = load_task(options, "", 5);
  CHECK(fresh.info.notes.at("classes").starts_with("grating 0\ngrating 1\n"));
  const nn::State values = fresh.model->state();
  const auto check_same = [&](const Task& task) {
    for (const auto& [name, array] : task.model->state())
      CHECK(array.to_vector() == values.at(name).to_vector());
  };

  nn::save_model(folder / "own", *fresh.model, fresh.info);
  options.init = folder / "own";
  check_same(load_task(options, "", 6));

  nn::State foreign;
  for (const auto& [name, array] : values)
    foreign["module." + name] = array.rank() == 4 ? kernels::transpose(array, {0, 3, 1, 2}) : array;
  data::save_safetensors(folder / "pytorch.safetensors", {foreign, {{"layout", "oihw"}}});
  options.init = folder / "pytorch.safetensors";
  CHECK_THROWS_AS(load_task(options, "", 6), format_error);
  options.import = "pytorch";
  const Task imported = load_task(options, "", 6);
  check_same(imported);
  CHECK(imported.info.notes.at("normalisation") == "imagenet");
  options.init.clear();
  CHECK_THROWS_AS(load_task(options, "", 6), argument_error);
}

TEST_CASE("a task takes from a file what fits, lists what does not, and draws the rest") {
  const Folder folder;
  TaskOptions options = small_task();
  options.model = "resnet8b";
  const Task fresh = load_task(options, "", 5);
  nn::ModelInfo info = fresh.info;
  info.options.classes = 4;
  const auto other = nn::make_model(info.model, info.options);
  nn::initialise(*other, 9);
  const nn::State saved = other->state();
  nn::save_model(folder / "m", *other, info);

  options.init = folder / "m";
  CHECK_THROWS_AS(load_task(options, "", 5), format_error);
  options.init_partial = true;
  const Task task = load_task(options, "", 5);
  CHECK(task.not_loaded.missing.empty());
  CHECK(task.not_loaded.unexpected.empty());
  CHECK(task.not_loaded.str() ==
        "of another shape: linear.bias (got (4), expected (10)) "
        "linear.weight (got (4,16), expected (10,16))");
  for (const auto& [name, array] : task.model->state())
    CHECK(array.to_vector() ==
          (name.starts_with("linear.") ? fresh.model->state() : saved).at(name).to_vector());

  other->state().at("linear.bias").data<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  nn::save_model(folder / "m", *other, info);
  CHECK_THROWS_AS(load_task(options, "", 5), format_error);
  options.accept_nan = true;
  CHECK_NOTHROW(load_task(options, "", 5));

  options.init.clear();
  CHECK_THROWS_AS(load_task(options, "", 5), argument_error);
}

TEST_CASE("colours change in training pictures alone, and only where there are colours") {
  Task task = load_task(small_task(), "", 1);
  TrainingOptions options;
  CHECK(task.training_transform(options).jitter == data::ColourJitter{});
  options.jitter = 0.4;
  CHECK(task.training_transform(options).jitter == data::ColourJitter{0.4, 0.4, 0.4, 0});
  CHECK(task.test_transform().jitter == data::ColourJitter{});
  CHECK(options.notes().at("jitter") == "0.4");
  CHECK(!TrainingOptions().notes().count("jitter"));
  task.train.image_shape = {28, 28, 1};
  CHECK_THROWS_AS(task.training_transform(options), argument_error);
}

TEST_CASE("pictures are cut to the size of the task") {
  TaskOptions options = small_task();
  options.size = 14;
  const Task task = load_task(options, "", 1);
  CHECK(task.model->input_shape() == Shape{1, 14, 14, 3});
  CHECK(task.test_transform().dst_shape(task.test.image_shape) == Shape{14, 14, 3});
  CHECK(task.seen(task.test.image(0)).shape() == Shape{14, 14, 3});
  const data::Transform training = task.training_transform({});
  CHECK(training.dst_shape(task.test.image_shape) == Shape{14, 14, 3});
  CHECK(training.random_resized == 14);
  CHECK(training.pad == 0);

  const Task whole = load_task(small_task(), "", 1);
  CHECK(whole.seen(whole.test.image(0)).shape() == Shape{32, 32, 3});
  CHECK(whole.training_transform({}).pad == TrainingOptions().crop);
}

TEST_CASE("parameters of quantizers do not decay, but PACT's clip does") {
  const Task task = load_task(small_task(), "", 5);
  const auto groups_for = [&](const std::string& quantizer) {
    QuantizationOptions options;
    options.quantizer = quantizer;
    const auto sites = options.attach(*task.model, options.policy_for(*task.model));
    std::map<std::string, std::pair<double, double>> found;  // learning rate and decay
    for (const nn::ParameterGroup& group : quantized_groups(*task.model, *sites, 0.5, 3))
      for (const nn::NamedTensor& p : group.parameters) {
        CHECK(found.count(p.name) == 0);
        found[p.name] = {group.lr_scale, group.weight_decay};
      }
    CHECK(found.size() == task.model->parameters().size());
    return found;
  };
  const auto dsq = groups_for("dsq"), pact = groups_for("pact");
  using Pair = std::pair<double, double>;
  CHECK(dsq.at("layer1.0.conv1.weight") == Pair{1, 0.5});
  CHECK(dsq.at("layer1.0.bn1.weight") == Pair{1, 0});
  CHECK(dsq.at("sites.layer1.0.conv1.weight.alpha") == Pair{3, 0});
  CHECK(pact.at("sites.layer1.0.conv1.input.alpha") == Pair{3, 0.5});
}
