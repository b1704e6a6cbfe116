// bench load: reading and changing pictures, without a network.
#include <iostream>

#include "../common/table.h"
#include "../common/task.h"
#include "bench.h"

namespace stairgrad::examples {
namespace {

// Pictures a second of `next`, which gives a number of pictures and 0 at the end of an epoch, over some
// seconds.
template <class Next>
double pictures_per_second(const Next& next, double seconds) {
  int64_t pictures = 0;
  const Stopwatch watch;
  while (watch.seconds() < seconds) pictures += next();
  return static_cast<double>(pictures) / watch.seconds();
}

double loading_rate(data::Loader& loader, double seconds) {
  int64_t epoch = 0;
  loader.start(epoch);
  return pictures_per_second(
      [&] {
        data::Batch batch;
        if (loader.next(batch)) return batch.size();
        loader.start(++epoch);
        return int64_t{0};
      },
      seconds);
}

}  // namespace

int bench_load(int argc, char** argv) {
  CommonOptions common;
  TrainingOptions training{.dtype = "bf16"};
  std::string dataset = "cifar10";
  int64_t size = 0;
  double seconds = 5;
  bool json = false;
  Options options("bench load", "Measures reading and changing pictures, without a network.",
                  {"bench load --dataset cifar10 --cutout 8",
                   "bench load --dataset folder --data photos --size 224 --workers 2"});
  options.add("--dataset", dataset, "pictures").one_of(data::dataset_names());
  options.add("--data", common.data, "folder of the data sets");
  options.add("--size", size, "a random part of each picture becomes a square of so many pixels; 0: as it is")
      .at_least(0);
  options.add("--seconds", seconds, "how long to measure").between(0.1, 3600);
  options.add("--json", json, "print one JSON object");
  training.add_to(options);
  options.parse(argc, argv);

  const data::Dataset pictures = data::load_dataset(dataset, common.data, data::Split::train);
  data::Transform transform = training_transform(
      training,
      data::Normalisation::named(dataset == "folder" || dataset == "synthetic" ? "imagenet" : dataset));
  transform.random_resized = size;
  if (size > 0) transform.pad = 0;
  data::LoaderOptions how = loader_options(training);
  how.batch = std::min(how.batch, pictures.size());
  data::Loader loader(pictures, transform, how);
  const double loaded = loading_rate(loader, seconds);
  int64_t at = 0;
  const double decoded = pictures_per_second(
      [&] {
        pictures.image(at);
        at = (at + 1) % pictures.size();
        return int64_t{1};
      },
      seconds);
  if (json) {
    Value all = described(options.values());
    all.set("images_per_second", loaded);
    all.set("decoded_per_second", decoded);
    std::cout << all.json() << "\n";
    return 0;
  }
  std::cout << dataset << ", batch " << how.batch << ", " << training.dtype << ", " << training.workers
            << " workers: " << count(std::llround(loaded))
            << " pictures/s; reading or decoding alone, in one thread: " << count(std::llround(decoded))
            << " pictures/s\n";
  return 0;
}

}  // namespace stairgrad::examples
