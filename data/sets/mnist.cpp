#include <filesystem>

#include "../formats/idx.h"
#include "sets.h"

namespace stairgrad::data {
namespace {

Dataset idx_pair(const Place& place, const std::string& dir, bool train,
                 std::vector<std::string> class_names) {
  const std::string stem = train ? "train" : "t10k";
  const std::string images_name = stem + "-images-idx3-ubyte", labels_name = stem + "-labels-idx1-ubyte";
  const std::string root = find_data(place, dir, images_name) + '/';
  const auto path_of = [&](const std::string& name) {
    return root + name + (std::filesystem::exists(root + name) ? "" : ".gz");
  };
  const std::string images_path = path_of(images_name), labels_path = path_of(labels_name);
  const auto refuse = [](const std::string& path, uint64_t offset, const std::string& reason) {
    const bool packed = path.ends_with(".gz");
    throw format_error(path, packed ? 0 : offset,
                       packed ? text("byte ", offset, " of what it unpacks to: ", reason) : reason);
  };
  const Array images = read_idx(images_path), labels = read_idx(labels_path);
  if (images.rank() != 3) refuse(images_path, 3, text("got extents ", images.shape(), ", expected (n,h,w)"));
  if (labels.rank() != 1) refuse(labels_path, 3, text("got extents ", labels.shape(), ", expected (n)"));
  if (images.dim(0) != labels.dim(0))
    refuse(labels_path, 4,
           text("got ", labels.dim(0), " labels for the ", images.dim(0), " images of ", images_path,
                "; fetch both files again"));
  constexpr uint64_t header = 8;
  const uint8_t* label = labels.data<uint8_t>();
  for (int64_t i = 0; i < labels.size(); ++i)
    if (label[i] >= class_names.size())
      refuse(labels_path, header + static_cast<uint64_t>(i),
             text("label ", i, " is ", int{label[i]}, ", expected 0 to ", class_names.size() - 1));
  return dataset_of(place.name, images.reshape({images.dim(0), images.dim(1), images.dim(2), 1}),
                    {label, label + labels.size()}, std::move(class_names));
}

}  // namespace

Dataset fashion_mnist(const std::string& dir, bool train) {
  return idx_pair(
      {"fashion-mnist", "fashion-mnist", "/usr/share/datasets/fashion-mnist",
       "get it with data/get.sh fashion-mnist, or install the Debian package dataset-fashion-mnist"},
      dir, train,
      {"T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
       "ankle boot"});
}

Dataset mnist(const std::string& dir, bool train) {
  return idx_pair({"mnist", "mnist", "", "get it with data/get.sh mnist"}, dir, train,
                  {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"});
}

}  // namespace stairgrad::data
