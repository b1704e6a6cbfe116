// The training loop of the programs: it stops, goes on and fails as it promises.
#include "../../examples/common/training.h"

#include <doctest/doctest.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <sstream>
#include <thread>

#include "../../autograd/ops.h"
#include "../../examples/common/interrupt.h"
#include "../../nn/layers.h"
#include "../../nn/resnet.h"
#include "../folder.h"
#include "../message.h"

using namespace stairgrad;
using namespace stairgrad::examples;

namespace {

// 8x8 pictures, brighter for higher classes.
data::Dataset pictures() {
  constexpr int64_t n = 60;
  Array images({n, 8, 8, 3}, DType::u8);
  std::vector<int32_t> labels;
  for (int64_t i = 0; i < images.size(); ++i)
    images.data<uint8_t>()[i] =
        static_cast<uint8_t>(60 * (i / 192 % 3) + 60 * Philox(1).uniform(static_cast<uint64_t>(i)));
  for (int64_t i = 0; i < n; ++i) labels.push_back(static_cast<int32_t>(i % 3));
  return data::dataset_of("pictures", images, labels, {"dark", "grey", "bright"});
}

TrainingOptions settings() {
  TrainingOptions options;
  options.epochs = 3;
  options.batch = 10;
  options.lr = 0.05;
  options.warmup = 0.5;
  options.average = 0.9;
  options.mixup = 0.4;
  options.label_smoothing = 0.1;
  options.crop = 1;
  options.seed = 3;
  return options;
}

const data::Normalisation centred{{0.4}, {0.3}};

// A whole run with everything it needs; `stop_at` counts batches from 1.
struct Run {
  explicit Run(std::string out, TrainingOptions options = settings())
      : out(std::move(out)),
        options(std::move(options)),
        model(nn::make_model("resnet8", {.image_size = 8, .classes = 3, .width = 0.25})) {
    nn::initialise(*model, 5);
  }

  void go(bool resume, int stop_at = 0, bool poison = false) {
    data::Loader loader(dataset, training_transform(options, centred), loader_options(options));
    const auto optimiser = make_optimiser(options, decayed_groups(*model, options.weight_decay));
    RunDirectory run(out, resume);
    TrainingJob job{
        .model = *model, .optimiser = *optimiser, .loader = loader, .options = options, .run = run};
    job.after_step = [&] {
      if (++steps == stop_at && poison) {
        Array bias = model->state().at("layer1.0.bn1.bias");
        bias.assign(Array::full(bias.shape(), NAN));
      } else if (steps == stop_at) {
        std::raise(SIGINT);
      }
    };
    job.evaluate = [&] {
      return examples::evaluate(*model, pictures(),
                                training_transform({.crop = 0, .no_flip = true}, centred));
    };
    seconds = train(job, resume);
    speed = run.result().find("speed.training.images_per_second")->number();
    loss = run.series("epoch", "loss").y;
    epoch_seconds = run.series("epoch", "seconds").y;
    accuracy = run.series("epoch", "accuracy").y;
    images_per_second = run.series("epoch", "images_per_second").y;
  }

  std::map<std::string, std::vector<double>> values() const {
    std::map<std::string, std::vector<double>> all;
    for (const auto& [name, array] : model->state()) all[name] = array.to_vector();
    return all;
  }

  std::string out;
  TrainingOptions options;
  data::Dataset dataset = pictures();
  std::unique_ptr<nn::Model> model;
  int steps = 0;
  double seconds = 0, speed = 0;
  std::vector<double> epoch_seconds, loss, accuracy, images_per_second;
};

}  // namespace

TEST_CASE("a run that Ctrl-C stopped anywhere goes on bit for bit, with any number of workers") {
  const Folder folder;
  Run whole(folder / "whole");
  whole.go(false);
  CHECK(whole.steps == 18);
  REQUIRE(whole.loss.size() == 3);
  for (const int stop : {1, 6, 7, 18}) {
    CAPTURE(stop);
    Run first(folder / "stopped");
    CHECK_THROWS_AS(first.go(false, stop), Interrupted);
    CHECK(first.steps == stop);
    Run second(folder / "stopped");
    second.options.workers = 2;
    second.go(true);
    CHECK(second.steps == 18 - stop);
    // The time of the first process counts, too.
    REQUIRE(second.epoch_seconds.size() == 3);
    const double all = second.epoch_seconds[0] + second.epoch_seconds[1] + second.epoch_seconds[2];
    CHECK(all > 0);
    CHECK(second.seconds == doctest::Approx(all));
    CHECK(second.speed == doctest::Approx(3 * 60 / all));
    CHECK(second.values() == whole.values());
    CHECK(second.loss == whole.loss);
    CHECK(second.accuracy == whole.accuracy);
  }
}

TEST_CASE("adamw trains, and what it remembers outlives a stop") {
  const Folder folder;
  TrainingOptions options = settings();
  options.optimiser = "adamw";
  options.lr = 1e-3;
  Run whole(folder / "whole", options), first(folder / "stopped", options),
      second(folder / "stopped", options), sgd(folder / "stopped");
  whole.go(false);
  CHECK(whole.loss.back() < whole.loss.front());
  CHECK_THROWS_AS(first.go(false, 7), Interrupted);
  CHECK_THROWS_AS(sgd.go(true), argument_error);
  second.go(true);
  CHECK(second.values() == whole.values());
}

TEST_CASE("a finished run that is resumed trains no more and gives the same network") {
  const Folder folder;
  Run run(folder / "run"), again(folder / "run");
  run.go(false);
  again.go(true);
  CHECK(again.steps == 0);
  CHECK(again.values() == run.values());
}

TEST_CASE("a run is not resumed with other settings") {
  const Folder folder;
  CHECK_THROWS_AS(Run(folder / "run").go(false, 2), Interrupted);
  TrainingOptions other = settings();
  other.lr = 0.06;
  Run second(folder / "run", other);
  const auto before = second.values();
  CHECK_THROWS_WITH_AS(second.go(true),
                       "[restore] the checkpoint is of another run: its lr is 0.05, that of this run 0.06",
                       argument_error);
  CHECK(second.values() == before);
}

TEST_CASE("a loss that is not finite names step and parameter, and no checkpoint of it is written") {
  const Folder folder;
  Run run(folder / "run");
  const std::string message = message_of<numeric_error>([&] { run.go(false, 8, /*poison=*/true); });
  CHECK(contains(message, "step 9 (epoch 2)"));
  CHECK(contains(message, "layer1.0.bn1.bias is not finite"));
  Run again(folder / "run");
  again.go(true);  // from the end of epoch 1
  CHECK(again.steps == 12);
}

TEST_CASE("a run that waits for its data says so in the first epoch, and its images/s count the waiting") {
  const Folder folder;
  TrainingOptions options = settings();
  options.epochs = 1;
  Run run(folder / "run", options);
  run.dataset.image = [fast = run.dataset.image](int64_t i) {  // 1.1 s a batch, 6.6 s an epoch
    std::this_thread::sleep_for(std::chrono::milliseconds(110));
    return fast(i);
  };
  std::ostringstream printed;
  std::streambuf* const terminal = std::cout.rdbuf(printed.rdbuf());
  run.go(false);
  std::cout.rdbuf(terminal);
  CHECK_MESSAGE(printed.str().find("waiting for data") != std::string::npos, printed.str());
  REQUIRE(run.images_per_second.size() == 1);
  CHECK(run.images_per_second[0] < 60 / 6.0);
}

TEST_CASE("evaluation counts and averages") {
  const data::Dataset dataset = pictures();
  int64_t seen = 0;
  const auto says_grey = [&](const Array& images) {
    seen += images.dim(0);
    Array logits = Array::zeros({images.dim(0), 3});
    for (int64_t i = 0; i < images.dim(0); ++i) logits.data<float>()[3 * i + 1] = 2;
    return logits;
  };
  const Evaluated found = evaluate(says_grey, dataset, {});
  CHECK(seen == 60);
  CHECK(found.images == 60);
  CHECK(found.accuracy == doctest::Approx(100.0 / 3));
  const double log_sum = std::log(std::exp(2.0) + 2);
  CHECK(found.loss == doctest::Approx(log_sum - 2.0 / 3));
  CHECK(found.predictions == std::vector<int32_t>(60, 1));
  CHECK_THROWS_AS(evaluate(
                      [](const Array& x) {
                        return Array::zeros({x.dim(0), 4});
                      },
                      dataset, {}),
                  argument_error);
  CHECK_THROWS_AS(evaluate(
                      [](const Array& x) {
                        return Array::full({x.dim(0), 3}, NAN);
                      },
                      dataset, {}),
                  numeric_error);
}

TEST_CASE("large pictures are evaluated in small batches") {
  CHECK(evaluation_batch({32, 32, 3}) == 250);
  CHECK(evaluation_batch({224, 224, 3}) == 32);
  CHECK(evaluation_batch({16'384, 16'384, 3}) == 1);

  std::vector<int32_t> labels(70);
  for (size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<int32_t>(i % 2);
  const data::Dataset dataset =
      data::dataset_of("large", Array::zeros({70, 224, 224, 1}, DType::u8), labels, {"a", "b"});
  std::vector<int64_t> batches;
  const auto says_a = [&](const Array& images) {
    batches.push_back(images.dim(0));
    Array logits = Array::zeros({images.dim(0), 2});
    for (int64_t i = 0; i < images.dim(0); ++i) logits.data<float>()[2 * i] = 1;
    return logits;
  };
  const Evaluated found = evaluate(says_a, dataset, {});
  CHECK(batches == std::vector<int64_t>{32, 32, 6});
  CHECK(found.images == 70);
  CHECK(found.accuracy == doctest::Approx(50));
  CHECK(found.loss == doctest::Approx(std::log(1 + std::exp(1.0)) - 0.5));
}

TEST_CASE("normalisation and biases do not decay") {
  const nn::BasicBlock block(2, 4, 2, nn::Shortcut::B);
  const auto groups = decayed_groups(block, 0.1);
  REQUIRE(groups.size() == 2);
  CHECK(groups[0].parameters.size() == 3);
  CHECK(groups[0].weight_decay == 0.1);
  CHECK(groups[1].parameters.size() == 6);
  CHECK(groups[1].weight_decay == 0);
}
