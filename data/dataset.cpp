#include "dataset.h"

#include <algorithm>
#include <numeric>

#include "../kernels/random.h"
#include "sets/sets.h"

namespace stairgrad::data {
namespace {

struct Reader {
  std::string name;
  Dataset (*read)(const std::string& dir, bool train);
};

const std::vector<Reader>& readers() {
  static const std::vector<Reader> table = {
      {"fashion-mnist", fashion_mnist}, {"mnist", mnist},   {"cifar10", cifar10},
      {"cifar100", cifar100},           {"folder", folder}, {"synthetic", synthetic},
  };
  return table;
}

template <class Names>
std::string join(const Names& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

}  // namespace

Split split_named(const std::string& name) {
  if (name == "train") return Split::train;
  if (name == "test") return Split::test;
  if (name == "fit") return Split::fit;
  if (name == "validation") return Split::validation;
  throw argument_error("[data] got the split " + name + ", expected train, test, fit or validation");
}

Dataset dataset_of(std::string name, const Array& images, std::vector<int32_t> labels,
                   std::vector<std::string> class_names) {
  check(images.dtype() == DType::u8 && images.rank() == 4, "[data] images: got ", name_of(images.dtype()),
        images.shape(), ", expected u8 (n, h, w, c)");
  check(images.dim(0) == static_cast<int64_t>(labels.size()), "[data] got ", labels.size(), " labels for ",
        images.dim(0), " images");
  for (size_t i = 0; i < labels.size(); ++i)
    check(labels[i] >= 0 && labels[i] < static_cast<int64_t>(class_names.size()), "[data] label ", i, " is ",
          labels[i], ", expected 0 to ", class_names.size() - 1);
  const Shape image_shape{images.dim(1), images.dim(2), images.dim(3)};
  return {std::move(name), std::move(class_names), std::move(labels), image_shape,
          [images, image_shape](int64_t i) { return images.slice(i, 1).reshape(image_shape); }};
}

Dataset subset(const Dataset& dataset, std::vector<int64_t> indices) {
  Dataset part = dataset;
  part.labels.clear();
  for (const int64_t i : indices) {
    check(i >= 0 && i < dataset.size(), "[data] got picture ", i, " of a data set of ", dataset.size());
    part.labels.push_back(dataset.labels[static_cast<size_t>(i)]);
  }
  part.image = [image = dataset.image, indices = std::move(indices)](int64_t i) {
    return image(indices.at(static_cast<size_t>(i)));
  };
  return part;
}

Dataset first(const Dataset& dataset, int64_t count) {
  check(count >= 0, "[data] got a count of ", count);
  std::vector<int64_t> indices(static_cast<size_t>(std::min(count, dataset.size())));
  std::iota(indices.begin(), indices.end(), int64_t{0});
  return subset(dataset, std::move(indices));
}

Dataset load_dataset(const std::string& name, const std::string& dir, Split split) {
  const auto found = std::ranges::find(readers(), name, &Reader::name);
  check(found != readers().end(), "[data] got the data set ", name, ", expected one of ",
        join(dataset_names()));
  const Dataset dataset = found->read(dir, split != Split::test);
  if (split == Split::train || split == Split::test) return dataset;

  const bool named = name == "cifar10" || name == "cifar100" || name == "mnist" || name == "fashion-mnist";
  const int64_t n = dataset.size(), held_out = named ? std::min<int64_t>(5000, n / 2) : n / 10;
  constexpr uint64_t seed = 20190814;  // never changes: results on `validation` stay comparable
  std::vector<int64_t> order = random_permutation(n, Philox(seed, stream_of("validation")));
  const auto border = order.begin() + (n - held_out);
  std::vector<int64_t> part = split == Split::fit ? std::vector<int64_t>(order.begin(), border)
                                                  : std::vector<int64_t>(border, order.end());
  std::ranges::sort(part);
  return subset(dataset, std::move(part));
}

const std::vector<std::string>& dataset_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> list;
    for (const Reader& reader : readers()) list.push_back(reader.name);
    return list;
  }();
  return names;
}

}  // namespace stairgrad::data
