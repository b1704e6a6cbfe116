// Published weights in the zoo: CIFAR-10's whole test set, ImageNet networks against an independent program.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "../../autograd/recorder.h"
#include "../../data/formats/json.h"
#include "../../data/loader.h"
#include "../../data/sets/sets.h"
#include "../../nn/import.h"
#include "../skip.h"

using namespace stairgrad;
using namespace stairgrad::nn;

namespace {

// The folder with `file`; without it the test says so.
std::optional<std::string> folder_with(const std::string& subfolder, const std::string& file) {
  try {
    return data::find_data({subfolder, subfolder, "", "put it there to run this test"}, "", file);
  } catch (const unavailable_error& error) {
    skip(error.what());
    return {};
  }
}

int64_t count_right(Model& model, const data::Dataset& dataset, const data::Transform& transform,
                    int64_t batch) {
  const Evaluation evaluation(model);
  const NoGrad no_grad;
  data::Loader loader(dataset, transform, {.batch = batch});
  int64_t right = 0;
  for (const data::Batch& b : loader.epoch(0)) {
    const Array logits = model(b.images).value();
    for (int64_t i = 0; i < b.size(); ++i) {
      const float* row = logits.data<float>() + i * logits.dim(1);
      right += std::max_element(row, row + logits.dim(1)) - row == b.labels.data<int32_t>()[i];
    }
  }
  return right;
}

// An ImageNet network, its file, and its entry of golden/imports.json.
struct ImageNetCase {
  std::string recipe, model;
  double width;
};

void check_imagenet(const ImageNetCase& c) {
  CAPTURE(c.model);
  const std::string path = GOLDEN "/imports.json";
  const data::Json golden = data::parse_json(data::read_file(path, 1 << 20), path).at(c.model);
  const std::string file = golden.at("file");
  const auto weights = folder_with("weights", file);
  if (!weights) return;
  ModelOptions options = usual_options(c.model);
  options.width = c.width;
  const Imported imported = import_model(c.recipe, *weights + '/' + file, c.model, options);
  Model& model = *imported.model;
  model.eval();
  const data::Normalisation normalisation =
      data::Normalisation::named(imported.info.notes.at("normalisation"));

  if (folder_with("cifar-10-batches-bin", "test_batch.bin")) {
    // Pictures of CIFAR-10, each pixel 7 x 7 times: the same for both programs, whoever decodes JPEGs how.
    const data::Dataset small = data::first(data::load_dataset("cifar10", "", data::Split::test), 16);
    Array pixels({16, 224, 224, 3}, DType::u8);
    for (int64_t n = 0; n < 16; ++n) {
      const Array picture = small.image(n);
      for (int64_t i = 0; i < 224 * 224 * 3; ++i)
        pixels.data<uint8_t>()[n * 224 * 224 * 3 + i] =
            picture.data<uint8_t>()[(i / (224 * 3) / 7 * 32 + i / 3 % 224 / 7) * 3 + i % 3];
    }
    const data::Dataset large = data::dataset_of("enlarged", pixels, small.labels, small.class_names);
    data::Loader loader(large, {.normalisation = normalisation}, {.batch = 16});
    loader.start(0);
    data::Batch batch;
    REQUIRE(loader.next(batch));
    const NoGrad no_grad;
    const Array logits = model(batch.images).value();
    REQUIRE(logits.shape() == Shape{16, 1000});
    for (size_t n = 0; n < 16; ++n) {
      const double largest = golden.at("largest")[n];
      for (size_t k = 0; k < 25; ++k) {
        const double expected = golden.at("every_40th")[n][k];
        CHECK(std::abs(logits.data<float>()[n * 1000 + 40 * k] - expected) <= 1e-4 * largest);
      }
    }
  }

  if (const auto folder = folder_with("imagenet1000-256", "labels.tsv")) {
    std::vector<int64_t> every_fifth;
    for (int64_t i = 0; i < 1000; i += 5) every_fifth.push_back(i);
    const data::Dataset photos = data::subset(data::load_dataset("folder", *folder), every_fifth);
    const int64_t right =
        count_right(model, photos, {.normalisation = normalisation, .centre_crop = 224}, /*batch=*/10);
    const int64_t expected = golden.at("right");
    MESSAGE(c.model, ": ", right, " of 200, PyTorch with Pillow's decoder ", expected);
    CHECK(std::abs(right - expected) <= 3);
  }
}

}  // namespace

TEST_CASE("published CIFAR-10 networks have the accuracy that their author states") {
  if (!folder_with("cifar-10-batches-bin", "test_batch.bin")) return;
  const data::Dataset test = data::load_dataset("cifar10", "", data::Split::test);
  struct Published {
    std::string model, file;
    double accuracy;
  };
  for (const Published& p : {Published{"resnet20", "akamaster_resnet20-12fca82f.th", 91.73},
                             Published{"resnet32", "akamaster_resnet32-d509ac18.th", 92.63},
                             Published{"resnet44", "akamaster_resnet44-014dd654.th", 93.10}}) {
    CAPTURE(p.model);
    const auto folder = folder_with("weights", p.file);
    if (!folder) continue;
    const Imported imported = import_model("pytorch", *folder + '/' + p.file, p.model);
    const data::Transform transform{.normalisation =
                                        data::Normalisation::named(imported.info.notes.at("normalisation"))};
    const int64_t right = count_right(*imported.model, test, transform, /*batch=*/200);
    MESSAGE(p.model, ": ", right, " of 10000");
    CHECK(std::abs(0.01 * static_cast<double>(right) - p.accuracy) < 0.05);
  }
}

TEST_CASE("MobileNetV2 with folded batch norms and TensorFlow's padding says what PyTorch says") {
  check_imagenet({"tensorflow-folded", "mobilenet_v2", 1});
}

TEST_CASE("Keras's MobileNetV1 at a quarter of the width says what PyTorch says") {
  check_imagenet({"keras", "mobilenet_v1", 0.25});
}
