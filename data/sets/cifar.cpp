#include "../formats/cifar.h"

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "sets.h"

namespace stairgrad::data {
namespace {

/// The lines of a file of class names. Throws format_error unless there are `count` of them.
std::vector<std::string> read_names(const std::string& path, size_t count) {
  const Bytes bytes = read_file(path, 1 << 20);
  std::istringstream lines(std::string(bytes.begin(), bytes.end()));
  std::vector<std::string> names;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) names.push_back(line);
  }
  if (names.size() != count)
    throw format_error(path, 0, text("got ", names.size(), " class names, expected ", count, hint(bytes)));
  return names;
}

Dataset join(const std::string& name, const std::vector<std::string>& paths, int64_t published,
             std::vector<std::string> class_names) {
  std::vector<CifarRecords> parts;
  int64_t total = 0;
  for (const std::string& path : paths) {
    parts.push_back(read_cifar(path, static_cast<int>(class_names.size())));
    total += parts.back().images.dim(0);
    const std::string warning = count_warning(path, parts.back().images.dim(0), published);
    if (!warning.empty()) warn_once(warning);
  }
  Array images({total, 32, 32, 3}, DType::u8);
  std::vector<int32_t> labels;
  uint8_t* to = images.data<uint8_t>();
  for (CifarRecords& part : parts) {
    to = std::copy_n(part.images.data<uint8_t>(), part.images.size(), to);
    labels.insert(labels.end(), part.labels.begin(), part.labels.end());
    part.images = Array();
  }
  return dataset_of(name, images, std::move(labels), std::move(class_names));
}

}  // namespace

std::string count_warning(const std::string& path, int64_t count, int64_t published) {
  if (count == published) return "";
  return text("[data] ", path, " has ", count, " records, the published file has ", published,
              "; unless that is meant, fetch it again");
}

Dataset cifar10(const std::string& dir, bool train) {
  const Place place{"cifar10", "cifar-10-batches-bin", "", "get it with data/get.sh cifar10"};
  const std::string root = find_data(place, dir, train ? "data_batch_1.bin" : "test_batch.bin") + '/';
  std::vector<std::string> paths;
  if (train)
    for (const char digit : {'1', '2', '3', '4', '5'}) paths.push_back(root + "data_batch_" + digit + ".bin");
  else
    paths.push_back(root + "test_batch.bin");
  return join("cifar10", paths, 10'000,
              {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"});
}

Dataset cifar100(const std::string& dir, bool train) {
  const Place place{"cifar100", "cifar-100-binary", "", "get it with data/get.sh cifar100"};
  const std::string file = train ? "train.bin" : "test.bin";
  const std::string root = find_data(place, dir, file) + '/';
  return join("cifar100", {root + file}, train ? 50'000 : 10'000,
              read_names(root + "fine_label_names.txt", 100));
}

}  // namespace stairgrad::data
