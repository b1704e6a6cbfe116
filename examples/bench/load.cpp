// bench load: reading and changing pictures, without a network.
#include <algorithm>
#include <filesystem>
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

// The JPEG files below a folder, in memory: the first thousand.
std::vector<data::Bytes> jpeg_files(const std::string& folder) {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    const std::string ending = entry.path().extension().string();
    if (ending == ".jpg" || ending == ".jpeg" || ending == ".JPEG") paths.push_back(entry.path().string());
  }
  std::ranges::sort(paths);
  paths.resize(std::min<size_t>(paths.size(), 1000));
  std::vector<data::Bytes> files;
  for (const std::string& path : paths) files.push_back(data::read_file(path));
  return files;
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
  const auto in_turn = [&](int64_t count, const auto& read) {
    int64_t at = 0;
    return pictures_per_second(
        [&] {
          read(at);
          at = (at + 1) % count;
          return int64_t{1};
        },
        seconds);
  };
  const double decoded = in_turn(pictures.size(), [&](int64_t i) { pictures.image(i); });
  const std::vector<data::Bytes> files =
      dataset == "folder" ? jpeg_files(common.data) : std::vector<data::Bytes>{};
  const double by_stb = files.empty() ? 0 : in_turn(std::ssize(files), [&](int64_t i) {
    decode_by_stb(files[static_cast<size_t>(i)]);
  });
  if (json) {
    Value all = described(options.values());
    all.set("images_per_second", loaded);
    all.set("decoded_per_second", decoded);
    if (!files.empty()) all.set("stb_per_second", by_stb);
    std::cout << all.json() << "\n";
    return 0;
  }
  std::cout << dataset << ", batch " << how.batch << ", " << training.dtype << ", " << training.workers
            << " workers: " << count(std::llround(loaded))
            << " pictures/s; reading or decoding alone, in one thread: " << count(std::llround(decoded))
            << " pictures/s";
  if (!files.empty())
    std::cout << "; stb alone, from memory: " << count(std::llround(by_stb)) << " pictures/s";
  std::cout << "\n";
  return 0;
}

}  // namespace stairgrad::examples
