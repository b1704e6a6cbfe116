// Trains a network in full precision, or in bf16 activations, on any of the data sets.
//
//     build/examples/train --model resnet20 --dataset cifar10 --epochs 100 --dtype bf16 --out out/resnet20
//
// With --epochs 0 and --init it only measures.
#include <iostream>

#include "../kernels/reduce.h"
#include "../nn/attribution.h"
#include "common/model_list.h"
#include "common/pictures.h"
#include "common/progress.h"
#include "common/report.h"
#include "common/task.h"

using namespace stairgrad;
using namespace stairgrad::examples;

namespace {

struct Settings {
  CommonOptions common;
  TaskOptions task;
  TrainingOptions training;
  bool test_curve = false;
  Value values;

  void parse(int argc, char** argv) {
    Options options(
        "train", "Trains a network of the zoo in floating point.",
        {"train --model resnet20 --dataset cifar10 --epochs 100 --dtype bf16 --out out/resnet20",
         "train --model resnet20 --dataset cifar10 --epochs 0 --init out/resnet20/model.safetensors",
         "train --model resnet20 --dataset cifar10 --epochs 0 --init resnet20.th --import pytorch"});
    bool list_models = false;
    std::string policy;
    common.add_to(options, "out/train");
    task.add_to(options);
    training.add_to(options);
    options.add("--test-curve", test_curve,
                "measure the test set after every epoch; without it, it is used once, after the last");
    options.add("--list-models", list_models,
                "print the networks with their parameters, multiply-accumulates (MACs) and, with --policy, "
                "bit operations (BOPs)");
    options.add("--policy", policy, "for --list-models: a policy file, or bits for all layers such as w4a4");
    options.parse(argc, argv);
    if (list_models) {
      std::cout << model_list(policy).text();
      throw Exit{0};
    }
    check(policy.empty(), "--policy ", policy, ": it is for --list-models; train works in floats");
    check(training.epochs > 0 || !task.init.empty(),
          "--epochs 0 measures a network; name its file with --init");
    training.seed = common.seed;
    values = options.values();
  }
};

void fit(const Settings& s, Task& task, const WatchedPictures& watched, RunDirectory& run) {
  data::Loader loader(task.train, task.training_transform(s.training), loader_options(s.training));
  const auto optimiser = make_optimiser(s.training, decayed_groups(*task.model, s.training.weight_decay));
  TrainingJob job{
      .model = *task.model, .optimiser = *optimiser, .loader = loader, .options = s.training, .run = run};
  job.notes = {{"model", s.task.model},
               {"dataset", s.task.dataset},
               {"width", text(s.task.width)},
               {"pictures", text(task.train.size())},
               {"init", s.task.init}};
  if (s.task.size > 0) job.notes["size"] = text(s.task.size);
  job.measured = watched.name;
  job.evaluate = [&] {
    return evaluate(*task.model, watched.pictures, task.test_transform(), s.training.type());
  };
  run.seconds("training", train(job, s.common.resume));
}

// The first test pictures, and where the network looks.
std::vector<Picture> attributed(Task& task, int64_t pictures, DType dtype) {
  const data::Dataset few = data::first(task.test, pictures);
  data::Loader loader(few, task.test_transform(), {.batch = pictures, .dtype = dtype});
  loader.start(0);
  data::Batch batch;
  loader.next(batch);
  const Array maps = nn::attribution_map(*task.model, batch.images);
  const Evaluated found = evaluate(*task.model, few, task.test_transform(), dtype);
  std::vector<Picture> row;
  for (int64_t i = 0; i < few.size(); ++i) {
    const auto name = [&](int32_t label) { return few.class_names[static_cast<size_t>(label)]; };
    const int32_t is = few.labels[static_cast<size_t>(i)], seen = found.predictions[static_cast<size_t>(i)];
    const Array image = picture_of(cast(task.seen(few.image(i)), DType::f32), 0, 255);
    const Array map = maps.slice(i, 1).reshape({maps.dim(1), maps.dim(2)});
    row.push_back({heat_overlay(image, map), is == seen ? name(is) : name(is) + ", taken for " + name(seen)});
  }
  return row;
}

void write_report(const Settings& s, Task& task, const std::string& watched, const Evaluated& result,
                  const RunDirectory& run) {
  Report report(
      text(s.task.model, " on ", s.task.dataset),
      text(percent(result.accuracy), " of ", count(result.images),
           s.task.validate ? " held-out pictures" : " test pictures", ", activations in ", s.training.dtype));
  if (const auto loss = run.series("epoch", "loss"); !loss.x.empty()) {
    const auto accuracy = run.series("epoch", "accuracy"), measured = run.series("epoch", "measured_loss");
    report.section("Training");
    report.curves("Loss", "epoch", "cross-entropy",
                  {{"training", loss.x, loss.y}, {watched, measured.x, measured.y}});
    report.curves("Accuracy", "epoch", "percent", {{watched, accuracy.x, accuracy.y}});
  }
  report.section("Where it looks");
  report.pictures("Grad-CAM of the top class",
                  attributed(task, std::min<int64_t>(12, task.test.size()), s.training.type()));
  report.section("Settings");
  Table table({"option", "value"});
  for (const auto& [name, value] : s.training.notes()) table.row({name, value});
  report.table(table);
  report.save(run.file("report.html"));
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Settings s;
    s.parse(argc, argv);
    RunDirectory run(s.common.out, s.common.resume);
    run.describe("train", s.values, s.common.seed);
    Task task = load_task(s.task, s.common.data, s.common.seed);
    std::cout << s.task.model << ": " << count(task.model->parameter_count()) << " parameters; "
              << s.task.dataset << ": " << count(task.train.size()) << " training and "
              << count(task.test.size()) << (s.task.validate ? " held-out pictures\n" : " test pictures\n");
    if (s.task.init_partial)
      std::cout << "--init-partial: " << (task.not_loaded.none() ? "everything fits" : task.not_loaded.str())
                << "\n";
    const WatchedPictures watched = watched_pictures(s.task, task, s.test_curve);
    if (s.training.epochs > 0) fit(s, task, watched, run);

    const Evaluated result = evaluate(*task.model, task.test, task.test_transform(), s.training.type());
    task.info.notes["accuracy"] = fixed(result.accuracy, 2);
    nn::save_model(run.file("model.safetensors"), *task.model, task.info);
    run.seconds("evaluation", result.seconds);
    run.result().set("accuracy.float", result.accuracy);
    run.result().set("loss.test", result.loss);
    run.result().set("cost.params", task.model->parameter_count());
    write_report(s, task, watched.name, result, run);
    run.finish();
    std::cout << "accuracy " << percent(result.accuracy) << ", loss " << fixed(result.loss, 4) << ", on "
              << count(result.images) << " pictures; see " << run.file("report.html") << "\n";
    return 0;
  });
}
