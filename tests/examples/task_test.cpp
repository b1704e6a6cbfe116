// Networks and data from the options: where the weights come from, and what part of a picture is seen.
#include "../../examples/common/task.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>

#include "../../data/formats/safetensors.h"
#include "../../kernels/movement.h"

using namespace stairgrad;
using namespace stairgrad::examples;

namespace {

struct Folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("stairgrad_task_" + std::to_string(getpid()));
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string operator/(const char* name) const { return (path / name).string(); }
};

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
