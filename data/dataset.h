// Data sets: labelled pictures, by number.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "../kernels/array.h"

namespace stairgrad::data {

/// Which pictures of a data set. `fit` and `validation` are a fixed division of `train` (5,000 pictures of
/// CIFAR and MNIST, a tenth of the others), for choosing settings without a look at `test`.
enum class Split { train, test, fit, validation };
/// Throws argument_error unless the name is train, test, fit or validation.
Split split_named(const std::string& name);

/// Labelled u8 pictures. A plain value: make one of your own by filling in the members.
struct Dataset {
  std::string name;
  std::vector<std::string> class_names;
  std::vector<int32_t> labels;
  Shape image_shape;  ///< (h, w, c); h = w = 0 if every picture has its own size
  /// Picture i as u8 (h, w, c), the same each time. Several threads call it at once.
  std::function<Array(int64_t i)> image;

  int64_t size() const { return static_cast<int64_t>(labels.size()); }
  int classes() const { return static_cast<int>(class_names.size()); }
};

/// A data set whose pictures are the rows of u8 (n, h, w, c). Throws argument_error when the numbers of
/// pictures and labels differ or a label is not a class.
Dataset dataset_of(std::string name, const Array& images, std::vector<int32_t> labels,
                   std::vector<std::string> class_names);

/// The pictures with these numbers, in this order.
Dataset subset(const Dataset& dataset, std::vector<int64_t> indices);
/// The first `count` pictures, or all if there are fewer.
Dataset first(const Dataset& dataset, int64_t count);

/// A data set by name: fashion-mnist, mnist, cifar10, cifar100, folder, synthetic. `dir` is the folder of the
/// data or the folder above it; if it is empty, $STAIRGRAD_DATA, or else $XDG_CACHE_HOME/stairgrad, or else
/// ~/.cache/stairgrad. Throws argument_error for an unknown name, unavailable_error that says how to get
/// missing data, and format_error for damaged data.
Dataset load_dataset(const std::string& name, const std::string& dir = "", Split split = Split::train);

/// Where a file that is kept beside the data sets is: `path` itself if it exists or is absolute, else `path`
/// within the folder of the data, such as weights/resnet20.th. The file need not exist.
std::string find_file(const std::string& path, const std::string& dir = "");

/// The names load_dataset knows.
const std::vector<std::string>& dataset_names();

}  // namespace stairgrad::data
