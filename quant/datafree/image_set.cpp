#include "image_set.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iomanip>
#include <sstream>

#include "../../data/formats/file.h"
#include "../../data/formats/image.h"
#include "../../data/formats/safetensors.h"

namespace stairgrad::quant::datafree {
namespace {

double of_channel(const std::vector<double>& values, int64_t c) {
  return values[values.size() == 1 ? 0 : static_cast<size_t>(c)];
}

std::string file_name(int64_t i) {
  std::ostringstream name;
  name << "pictures/" << std::setw(6) << std::setfill('0') << i << ".png";
  return name.str();
}

}  // namespace

std::vector<double> PixelScale::black(int64_t channels) const {
  std::vector<double> values;
  for (int64_t c = 0; c < channels; ++c) values.push_back(-of_channel(mean, c) / of_channel(deviation, c));
  return values;
}

std::vector<double> PixelScale::white(int64_t channels) const {
  std::vector<double> values;
  for (int64_t c = 0; c < channels; ++c)
    values.push_back((1 - of_channel(mean, c)) / of_channel(deviation, c));
  return values;
}

Array picture(const Array& images, int64_t i, const PixelScale& scale) {
  const int64_t channels = images.dim(3);
  Array result({images.dim(1), images.dim(2), channels}, DType::u8);
  const float* from = images.data<float>() + i * result.size();
  for (int64_t p = 0; p < result.size(); ++p) {
    const double value =
        from[p] * of_channel(scale.deviation, p % channels) + of_channel(scale.mean, p % channels);
    result.data<uint8_t>()[p] = static_cast<uint8_t>(std::lround(255 * std::clamp(value, 0.0, 1.0)));
  }
  return result;
}

void save(const ImageSet& set, const std::string& folder, const PixelScale& scale,
          const std::vector<std::string>& class_names) {
  std::error_code error;
  std::filesystem::create_directories(folder + "/pictures", error);
  if (error) throw unavailable_error(text("cannot make the folder ", folder, "/pictures: ", error.message()));
  std::string table = "file\tclass\tname\n";
  for (int64_t i = 0; i < set.size(); ++i) {
    const auto label = static_cast<size_t>(set.labels.classes[static_cast<size_t>(i)]);
    data::write_png(folder + "/" + file_name(i), picture(set.images, i, scale));
    table += text(file_name(i).substr(9), '\t', label, '\t',
                  label < class_names.size() ? class_names[label] : text("class ", label), '\n');
  }
  data::atomic_write(folder + "/pictures/labels.tsv", table);
  data::atomic_write(folder + "/recipe.json", set.recipe);
  const data::SafeTensors file{{{"images", set.images},
                                {"soft_labels", set.labels.soft},
                                {"classes", Array::of(set.labels.classes)},
                                {"hard", Array::of(set.labels.hard)}},
                               {}};
  data::save_safetensors(folder + "/images.safetensors", file);
}

ImageSet load_images(const std::string& folder) {
  const std::string path = folder + "/images.safetensors";
  const data::SafeTensors file = data::load_safetensors(path, data::Layout::any);
  const auto tensor = [&](const char* name, DType type, int rank) {
    const auto found = file.tensors.find(name);
    if (found == file.tensors.end()) throw format_error(path, 0, text("the tensor ", name, " is missing"));
    if (found->second.dtype() != type || found->second.rank() != rank)
      throw format_error(path, 0,
                         text("the tensor ", name, " is ", name_of(found->second.dtype()),
                              found->second.shape(), ", expected ", name_of(type), " of rank ", rank));
    return found->second;
  };
  ImageSet set;
  set.images = tensor("images", DType::f32, 4);
  set.labels.soft = tensor("soft_labels", DType::f32, 2);
  const Array classes = tensor("classes", DType::s32, 1), hard = tensor("hard", DType::u8, 1);
  const int64_t n = set.images.dim(0);
  if (n < 1 || set.labels.soft.dim(0) != n || classes.size() != n || hard.size() != n)
    throw format_error(path, 0,
                       text("images, labels and flags are of ", n, ", ", set.labels.soft.dim(0), ", ",
                            classes.size(), " and ", hard.size(), " images, expected the same number"));
  data::check_finite(file.tensors, path);
  set.labels.classes.assign(classes.data<int32_t>(), classes.data<int32_t>() + n);
  set.labels.hard.assign(hard.data<uint8_t>(), hard.data<uint8_t>() + n);
  for (const int32_t c : set.labels.classes)
    if (c < 0 || c >= set.labels.soft.dim(1))
      throw format_error(path, 0, text("got the class ", c, " of ", set.labels.soft.dim(1)));
  const data::Bytes recipe = data::read_file(folder + "/recipe.json", 1 << 20);
  set.recipe.assign(recipe.begin(), recipe.end());
  return set;
}

}  // namespace stairgrad::quant::datafree
