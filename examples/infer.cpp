// Says what is on pictures, and where the network looks.
//
//     build/examples/infer out/resnet20/model.safetensors cat.png ship.jpg
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <numeric>

#include "../autograd/ops.h"
#include "../data/formats/image.h"
#include "../data/formats/labels.h"
#include "../data/transforms.h"
#include "../kernels/threads.h"
#include "../nn/attribution.h"
#include "../nn/import.h"
#include "common/labels.h"
#include "common/options.h"
#include "common/pictures.h"
#include "common/run_directory.h"
#include "common/table.h"

using namespace stairgrad;
using namespace stairgrad::examples;

namespace {

struct Settings {
  std::vector<std::string> words;  // the model file, then the pictures
  std::string model, import, labels, norm, out = "out/infer";
  double width = 1;
  int64_t top = 5;
  int thread_count = threads();
  bool describe = false, accept_nan = false;
  Value values;

  void parse(int argc, char** argv) {
    std::vector<std::string> recipes = {""};
    for (const nn::ImportRecipe& recipe : nn::import_recipes()) recipes.push_back(recipe.name);
    Options options("infer", "Says what is on pictures, and where the network looks.",
                    {"infer out/resnet20/model.safetensors cat.png ship.jpg",
                     "infer --import pytorch --model resnet50 --labels imagenet.txt resnet50.pth cat.jpg",
                     "infer --describe out/resnet20/model.safetensors"});
    options.add_words("FILES", words, "a model file, then pictures (PNG, JPEG)");
    options.add("--import", import, "what the model file is, if it is a file of another framework")
        .one_of(recipes);
    options.add("--model", model, "with --import: network of the zoo").one_of(nn::model_names());
    options.add("--width", width, "with --import: multiplies the channels of the network").between(0.01, 100);
    options.add(
        "--labels", labels,
        "names of the classes: a line each, or a table with the columns class and name (default: those "
        "in the model file)");
    options.add("--norm", norm,
                "normalisation of the pictures: cifar, imagenet, tf, ... or means/deviations (default: that "
                "of the model file)");
    options.add("--top", top, "how many classes to print").at_least(1);
    options.add("--describe", describe, "print what the model file is, and stop");
    options.add("--accept-nan", accept_nan, "take weights that are NaN or infinite, too");
    options.add("--out", out, "folder for result.json and the Grad-CAM pictures");
    options.add("--threads", thread_count, "threads to compute with").between(1, 1024);
    options.parse(argc, argv);
    check(!words.empty(), "got no model file (infer --help shows how)");
    check(describe || words.size() > 1, "got no IMAGE (infer --help shows how)");
    check(import.empty() == model.empty(),
          "--import and --model go together: a model file of stairgrad says ",
          "what it is, one of another framework does not");
    set_threads(thread_count);
    values = options.values();
  }
};

struct Network {
  std::unique_ptr<nn::Model> model;
  nn::ModelInfo info;

  std::string note(const std::string& name) const {
    const auto found = info.notes.find(name);
    return found == info.notes.end() ? "" : found->second;
  }
};

Network load(const Settings& s) {
  const std::string& path = s.words[0];
  const auto not_finite = s.accept_nan ? nn::NotFinite::accept : nn::NotFinite::refuse;
  if (s.import.empty()) return {nn::load_model(path, not_finite), nn::read_model_info(path)};
  nn::ModelOptions options = nn::usual_options(s.model);
  options.width = s.width;
  nn::Imported imported = nn::import_model(s.import, path, s.model, options, not_finite);
  return {std::move(imported.model), std::move(imported.info)};
}

void print_description(const Network& network) {
  const nn::ModelOptions& o = network.info.options;
  Table table({"network", network.info.model});
  table.row({"input", text(o.image_size, " x ", o.image_size, " x ", o.in_channels)});
  table.row({"classes", count(o.classes)});
  table.row({"width", fixed(o.width, 2)});
  table.row({"parameters", count(network.model->parameter_count())});
  if (o.style.folded) table.row({"batch norms", "folded"});
  if (o.style.same_padding) table.row({"padding", "TensorFlow's"});
  for (const auto& [name, value] : network.info.notes)
    if (value.find('\n') == std::string::npos) table.row({name, value});
  std::cout << table.text();
}

// Names of all classes.
std::vector<std::string> class_names(const Settings& s, const Network& network) {
  const auto classes = static_cast<size_t>(network.info.options.classes);
  std::vector<std::string> names =
      s.labels.empty() ? split_lines(network.note("classes")) : data::read_class_names(s.labels);
  check(names.size() == classes || (names.empty() && s.labels.empty()), "--labels ", s.labels, ": got ",
        names.size(), " names, expected ", classes, ", the classes of ", s.words[0]);
  for (size_t k = names.size(); k < classes; ++k) names.push_back(text("class ", k));
  return names;
}

// The square in the middle of a picture, as the network takes it: 7/8 of the shorter side (224 of 256), but
// all of it for small networks. u8 (side, side, channels).
Array seen(const Array& picture, const nn::ModelOptions& o) {
  const int64_t side = o.image_size, shorter = side < 64 ? side : side * 8 / 7;
  Array square = picture;
  if (picture.dim(0) != side || picture.dim(1) != side)
    square = data::centre_crop(data::resize_short_side(picture, shorter), side);
  if (o.in_channels == 3) return square;
  Array grey({side, side, 1}, DType::u8);
  const uint8_t* rgb = square.data<uint8_t>();
  for (int64_t i = 0; i < side * side; ++i)  // luma of ITU-R 601
    grey.data<uint8_t>()[i] =
        static_cast<uint8_t>((299 * rgb[3 * i] + 587 * rgb[3 * i + 1] + 114 * rgb[3 * i + 2] + 500) / 1000);
  return grey;
}

struct Answer {
  std::vector<size_t> classes;        // the most probable first
  std::vector<double> probabilities;  // by class
};

Answer ask(nn::Model& model, const Array& images) {
  const nn::Evaluation evaluation(model);
  const NoGrad no_grad;
  Answer answer;
  answer.probabilities = softmax(model(images)).value().to_vector();
  answer.classes.resize(answer.probabilities.size());
  std::iota(answer.classes.begin(), answer.classes.end(), size_t{0});
  std::ranges::stable_sort(
      answer.classes, [&](size_t a, size_t b) { return answer.probabilities[a] > answer.probabilities[b]; });
  return answer;
}

// Where the network looks, over the picture it saw, large enough for people.
Array looked_at(nn::Model& model, const Array& square, const Array& images) {
  const Array map = nn::attribution_map(model, images);
  const Array picture = picture_of(cast(square, DType::f32), 0, 255);
  const int factor = static_cast<int>(std::max<int64_t>(1, 224 / picture.dim(0)));
  return heat_overlay(enlarge(picture, factor), map.reshape({map.dim(1), map.dim(2)}));
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Settings s;
    s.parse(argc, argv);
    Network network = load(s);
    if (s.describe) {
      print_description(network);
      return 0;
    }
    const nn::ModelOptions& o = network.info.options;
    check(o.in_channels == 1 || o.in_channels == 3, s.words[0], " takes pictures of ", o.in_channels,
          " channels, expected 1 or 3");
    const std::vector<std::string> names = class_names(s, network);
    const std::string norm = s.norm.empty() ? network.note("normalisation") : s.norm;
    check(!norm.empty(), s.words[0], " does not say how its pictures are normalised; say it with --norm");
    const data::Transform transform{.normalisation = data::Normalisation::named(norm)};

    RunDirectory run(s.out, /*resume=*/false);
    run.describe("infer", s.values, /*seed=*/0);
    Value::List results;
    for (size_t i = 1; i < s.words.size(); ++i) {
      const std::string& path = s.words[i];
      const Array square = seen(data::read_image(path), o);
      Array images(network.model->input_shape());
      transform.apply(square, data::Draws(0, 0, 0), images, 0);
      const Answer answer = ask(*network.model, images);

      std::cout << path << "\n";
      Table table({"class", "probability"});
      Value::List top;
      for (size_t k = 0; k < std::min<size_t>(static_cast<size_t>(s.top), answer.classes.size()); ++k) {
        const size_t label = answer.classes[k];
        table.row({names[label], percent(100 * answer.probabilities[label])});
        top.push_back(Value::Group{
            {"class", label}, {"name", names[label]}, {"probability", answer.probabilities[label]}});
      }
      std::cout << table.text();
      // The number keeps pictures of one name in different folders apart.
      const std::string stem = std::filesystem::path(path).stem().string();
      const std::string overlay = run.file(text(i, '-', stem, ".gradcam.png"));
      data::write_png(overlay, looked_at(*network.model, square, images));
      std::cout << "where it looks: " << overlay << "\n\n";
      results.push_back(Value::Group{{"image", path}, {"top", top}, {"gradcam", overlay}});
    }
    run.result().set("images", results);
    run.finish();
    return 0;
  });
}
