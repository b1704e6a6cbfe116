// Says what is on pictures, and where the network looks; or how often it is right. Takes networks in floats
// and in integers.
//
//     build/examples/infer out/resnet20/model.safetensors cat.png ship.jpg
//     build/examples/infer --describe out/quickstart/integer.safetensors
//     build/examples/infer --eval fashion-mnist out/quickstart/integer.safetensors
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <numeric>
#include <optional>

#include "../autograd/ops.h"
#include "../data/formats/image.h"
#include "../data/formats/labels.h"
#include "../data/loader.h"
#include "../kernels/movement.h"
#include "../kernels/reduce.h"
#include "../kernels/threads.h"
#include "../nn/attribution.h"
#include "../nn/import.h"
#include "../quant/integer/attribution.h"
#include "../quant/integer/model_file.h"
#include "common/explanation.h"
#include "common/labels.h"
#include "common/options.h"
#include "common/pictures.h"
#include "common/progress.h"
#include "common/run_directory.h"
#include "common/table.h"
#include "common/task.h"

using namespace stairgrad;
using namespace stairgrad::examples;

namespace {

struct Settings {
  std::vector<std::string> words;  // the model file, then the pictures
  std::string model, import, labels, norm, out = "out/infer", eval, data;
  double width = 1;
  int64_t top = 5, limit = 0;
  int thread_count = threads();
  bool describe = false, accept_nan = false;
  Value values;

  void parse(int argc, char** argv) {
    std::vector<std::string> recipes = {""};
    for (const nn::ImportRecipe& recipe : nn::import_recipes()) recipes.push_back(recipe.name);
    Options options("infer", "Says what is on pictures, and where the network looks.",
                    {"infer out/resnet20/model.safetensors cat.png ship.jpg",
                     "infer --import pytorch --model resnet50 --labels imagenet.txt resnet50.pth cat.jpg",
                     "infer --describe out/quickstart/integer.safetensors",
                     "infer --eval fashion-mnist out/quickstart/integer.safetensors"});
    options.add_words("FILES", words, "a model file, of floats or integers, then pictures (PNG, JPEG)");
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
    options.add("--describe", describe, "say what the model file is: a table here and as describe.html");
    options.add("--accept-nan", accept_nan, "take weights that are NaN or infinite, too");
    options.add("--eval", eval, "measure the accuracy on the test pictures of a data set")
        .one_of(data::dataset_names());
    options.add("--data", data, "folder of the data sets (default: STAIRGRAD_DATA, or the user's cache)");
    options.add("--limit", limit, "with --eval: use so many pictures only; 0: all").at_least(0);
    options.add("--out", out, "folder for result.json and the Grad-CAM pictures");
    options.add("--threads", thread_count, "threads to compute with").between(1, 1024);
    options.parse(argc, argv);
    check(!words.empty(), "got no model file (infer --help shows how)");
    check(describe || !eval.empty() || words.size() > 1, "got no IMAGE (infer --help shows how)");
    check(import.empty() == model.empty(),
          "--import and --model go together: a model file of stairgrad says ",
          "what it is, one of another framework does not");
    set_threads(thread_count);
    values = options.values();
  }
};

// A network that is asked: its pictures, its classes, what it says and where it looks.
class Network {
 public:
  virtual ~Network() = default;

  Shape image;  // (side, side, channels)
  int64_t classes = 0;
  std::vector<std::string> class_names;  // or none
  std::optional<data::Normalisation> normalisation;

  // (n, classes) f32 for images (n, h, w, c).
  virtual Array logits(const Array& images) = 0;
  // (h, w), f32 from 0 to 1, of the network's own top class for one image.
  virtual Array looks_at(const Array& images) = 0;
  // Prints a description and adds it to a page.
  virtual void describe(Report& report) = 0;
};

void show(Report& report, const std::string& title, const Table& table) {
  std::cout << table.text();
  report.section(title);
  report.table(table);
}

class FloatNetwork final : public Network {
 public:
  explicit FloatNetwork(const Settings& s) {
    const std::string& path = s.words[0];
    const auto not_finite = s.accept_nan ? nn::NotFinite::accept : nn::NotFinite::refuse;
    if (s.import.empty()) {
      model_ = nn::load_model(path, not_finite);
      info_ = nn::read_model_info(path);
    } else {
      nn::ModelOptions options = nn::usual_options(s.model);
      options.width = s.width;
      nn::Imported imported = nn::import_model(s.import, path, s.model, options, not_finite);
      model_ = std::move(imported.model);
      info_ = std::move(imported.info);
    }
    image = {info_.options.image_size, info_.options.image_size, info_.options.in_channels};
    classes = info_.options.classes;
    class_names = split_lines(note("classes"));
    if (const std::string norm = note("normalisation"); !norm.empty())
      normalisation = data::Normalisation::named(norm);
  }

  Array logits(const Array& images) override {
    const nn::Evaluation evaluation(*model_);
    const NoGrad no_grad;
    return (*model_)(images).value();
  }

  Array looks_at(const Array& images) override {
    const Array map = nn::attribution_map(*model_, images);
    return map.reshape({map.dim(1), map.dim(2)});
  }

  void describe(Report& report) override {
    const nn::ModelOptions& o = info_.options;
    Table table({"network", info_.model});
    table.row({"input", text(o.image_size, " x ", o.image_size, " x ", o.in_channels)});
    table.row({"classes", count(o.classes)});
    table.row({"width", fixed(o.width, 2)});
    table.row({"parameters", count(model_->parameter_count())});
    if (o.style.folded) table.row({"batch norms", "folded"});
    if (o.style.same_padding) table.row({"padding", "TensorFlow's"});
    for (const auto& [name, value] : info_.notes)
      if (value.find('\n') == std::string::npos) table.row({name, value});
    show(report, "Network", table);
  }

 private:
  std::string note(const std::string& name) const {
    const auto found = info_.notes.find(name);
    return found == info_.notes.end() ? "" : found->second;
  }

  std::unique_ptr<nn::Model> model_;
  nn::ModelInfo info_;
};

class IntegerNetwork final : public Network {
 public:
  IntegerNetwork(const std::string& path, quant::integer::Model model)
      : path_(path), model_(std::move(model)) {
    image = model_.values[static_cast<size_t>(model_.input)].shape;
    classes = model_.values[static_cast<size_t>(model_.output)].shape.size();
    class_names = model_.class_names;
    if (model_.mean.empty()) return;
    normalisation = {{model_.mean.begin(), model_.mean.end()},
                     {model_.deviation.begin(), model_.deviation.end()}};
  }

  Array logits(const Array& images) override {
    if (!session_ || session_->batch() != images.dim(0)) session_.emplace(model_, images.dim(0));
    return session_->run(images);
  }

  Array looks_at(const Array& images) override {
    quant::integer::Session session(model_, images.dim(0), /*keep_values=*/true);
    const int32_t top = kernels::argmax(session.run(images)).data<int32_t>()[0];
    const Array map = attribution_map(model_, session, {top});
    return map.reshape({map.dim(1), map.dim(2)});
  }

  void describe(Report& report) override {
    show(report, "Integer model", model_table(model_, path_));
    std::cout << "\n";
    show(report, "Layers", layer_table(model_));
  }

 private:
  std::string path_;
  quant::integer::Model model_;
  std::optional<quant::integer::Session> session_;
};

std::unique_ptr<Network> load(const Settings& s) {
  if (s.import.empty())
    if (auto model = quant::integer::load_if_integer(s.words[0]))
      return std::make_unique<IntegerNetwork>(s.words[0], std::move(*model));
  return std::make_unique<FloatNetwork>(s);
}

// Names of all classes.
std::vector<std::string> class_names(const Settings& s, const Network& network) {
  const auto classes = static_cast<size_t>(network.classes);
  std::vector<std::string> names = s.labels.empty() ? network.class_names : data::read_class_names(s.labels);
  check(names.size() == classes || (names.empty() && s.labels.empty()), "--labels ", s.labels, ": got ",
        names.size(), " names, expected ", classes, ", the classes of ", s.words[0]);
  for (size_t k = names.size(); k < classes; ++k) names.push_back(text("class ", k));
  return names;
}

// The middle of a picture, as the network takes it: 7/8 of the shorter side (224 of 256), but all of it for
// small networks. u8 of the shape `image`.
Array seen(const Array& picture, const Shape& image) {
  const int64_t h = image[0], w = image[1], side = std::max(h, w);
  Array middle = picture;
  if (picture.dim(0) != h || picture.dim(1) != w) {
    middle = data::centre_crop(data::resize_short_side(picture, side < 64 ? side : side * 8 / 7), side);
    const int64_t top = (side - h) / 2, left = (side - w) / 2;
    middle = kernels::slice(middle, {{top, top + h}, {left, left + w}, {0, 3}});
  }
  if (image[2] == 3) return middle;
  Array grey(image, DType::u8);
  const uint8_t* rgb = middle.data<uint8_t>();
  for (int64_t i = 0; i < h * w; ++i)  // luma of ITU-R 601
    grey.data<uint8_t>()[i] =
        static_cast<uint8_t>((299 * rgb[3 * i] + 587 * rgb[3 * i + 1] + 114 * rgb[3 * i + 2] + 500) / 1000);
  return grey;
}

struct Answer {
  std::vector<size_t> classes;        // the most probable first
  std::vector<double> probabilities;  // by class
};

Answer ask(Network& network, const Array& images) {
  const NoGrad no_grad;
  Answer answer;
  answer.probabilities = softmax(Tensor(network.logits(images))).value().to_vector();
  answer.classes.resize(answer.probabilities.size());
  std::iota(answer.classes.begin(), answer.classes.end(), size_t{0});
  std::ranges::stable_sort(
      answer.classes, [&](size_t a, size_t b) { return answer.probabilities[a] > answer.probabilities[b]; });
  return answer;
}

// Where the network looks, over the picture it saw, large enough for people.
Array looked_at(Network& network, const Array& seen_picture, const Array& images) {
  const Array map = network.looks_at(images);
  const Array picture = picture_of(cast(seen_picture, DType::f32), 0, 255);
  const int factor = static_cast<int>(std::max<int64_t>(1, 224 / picture.dim(0)));
  return heat_overlay(enlarge(picture, factor), map);
}

// Percent of the test pictures that it names right.
double accuracy(const Settings& s, Network& network, const data::Normalisation& normalisation) {
  data::Dataset pictures = data::load_dataset(s.eval, s.data, data::Split::test);
  if (s.limit > 0) pictures = data::first(pictures, s.limit);
  check(pictures.classes() == network.classes, "--eval ", s.eval, ": it has ", pictures.classes(),
        " classes, but ", s.words[0], " has ", network.classes);
  const int64_t side = network.image[0];
  data::Loader loader(pictures, fitting_transform(pictures, normalisation, side),
                      {.batch = side < 64 ? 200 : 32});
  Progress progress("evaluating", pictures.size());
  int64_t correct = 0;
  for (const data::Batch& batch : loader.epoch(0)) {
    const Array top = kernels::argmax(network.logits(batch.images));
    for (int64_t i = 0; i < batch.size(); ++i)
      correct += top.data<int32_t>()[i] == batch.labels.data<int32_t>()[i];
    progress.advance(batch.size());
  }
  return 100 * static_cast<double>(correct) / static_cast<double>(pictures.size());
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Settings s;
    s.parse(argc, argv);
    const std::unique_ptr<Network> network = load(s);
    check(network->image[2] == 1 || network->image[2] == 3, s.words[0], " takes pictures of ",
          network->image[2], " channels, expected 1 or 3");
    if (!s.norm.empty()) network->normalisation = data::Normalisation::named(s.norm);
    check(s.describe || network->normalisation, s.words[0],
          " does not say how its pictures are normalised; say it with --norm");

    RunDirectory run(s.out, /*resume=*/false);
    run.describe("infer", s.values, /*seed=*/0);
    if (s.describe) {
      Report report("stairgrad", s.words[0]);
      network->describe(report);
      report.save(run.file("describe.html"));
      run.finish();
      return 0;
    }
    if (!s.eval.empty()) {
      const double right = accuracy(s, *network, *network->normalisation);
      std::cout << "accuracy on " << s.eval << ": " << percent(right) << "\n";
      run.result().set("accuracy.top1", right);
    }
    const std::vector<std::string> names = class_names(s, *network);
    const data::Transform transform{.normalisation = *network->normalisation};
    Value::List results;
    for (size_t i = 1; i < s.words.size(); ++i) {
      const std::string& path = s.words[i];
      const Array picture = seen(data::read_image(path), network->image);
      Array images({1, network->image[0], network->image[1], network->image[2]});
      transform.apply(picture, data::Draws(0, 0, 0), images, 0);
      const Answer answer = ask(*network, images);

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
      Value::Group result = {{"image", path}, {"top", top}};
      try {
        data::write_png(overlay, looked_at(*network, picture, images));
        std::cout << "where it looks: " << overlay << "\n\n";
        result.emplace_back("gradcam", overlay);
      } catch (const argument_error& error) {
        std::cout << "no Grad-CAM: " << error.what() << "\n\n";
      }
      results.push_back(result);
    }
    run.result().set("images", results);
    run.finish();
    return 0;
  });
}
