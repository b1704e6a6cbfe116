#include "task.h"

#include "../../nn/import.h"
#include "labels.h"

namespace stairgrad::examples {

void TaskOptions::add_to(Options& o) {
  o.add("--model", model, "network of the zoo").one_of(nn::model_names());
  o.add("--dataset", dataset, "pictures").one_of(data::dataset_names());
  o.add("--init", init,
        "model file to start from; a relative name may also be one in the folder of the data");
  o.add("--init-partial", init_partial,
        "load of --init what fits, such as all but the classes, and say what did not; the rest gets initial "
        "values");
  o.add("--accept-nan", accept_nan, "take weights of --init that are NaN or infinite, too");
  std::vector<std::string> recipes = {""};
  std::string abouts;
  for (const nn::ImportRecipe& recipe : nn::import_recipes()) {
    recipes.push_back(recipe.name);
    abouts += "; " + recipe.name + ": " + recipe.about;
  }
  o.add("--import", import, "what --init is, if it is a file of another framework" + abouts).one_of(recipes);
  o.add("--norm", norm,
        "normalisation of the pictures: cifar, imagenet, tf, ... or means/deviations (default: that of "
        "--init, or the "
        "data set's own)");
  o.add("--activation", activation,
        "in place of the ReLU of the network: hardtanh, for binary activations (default: that of --init)")
      .one_of({"", "relu", "hardtanh"});
  o.add("--width", width, "multiplies the channels of the network").between(0.01, 100);
  o.add("--size", size,
        "cut pictures to squares of so many pixels: the middle to measure, after the shorter side became 8/7 "
        "of it, a random part to train; 0: they stay as they are")
      .at_least(0);
  o.add("--limit", limit, "use so many training and test pictures only; 0: all").at_least(0);
  o.add("--validate", validate, "measure on pictures held out of the training set, not on the test set");
}

data::Transform fitting_transform(const data::Dataset& pictures, const data::Normalisation& normalisation,
                                  int64_t side) {
  if (pictures.image_shape[0] == side && pictures.image_shape[1] == side)
    return {.normalisation = normalisation};
  return data::resize_and_centre_crop(normalisation, side < 64 ? side : side * 8 / 7, side);
}

std::unique_ptr<nn::Model> Task::as_trained() const {
  nn::ModelOptions options = info.options;
  options.style.activation = trained_activation;
  auto copy = nn::make_model(info.model, options);
  copy->load_state(model->state());
  copy->eval();
  return copy;
}

data::Transform Task::test_transform() const {
  if (size > 0) return data::resize_and_centre_crop(normalisation, size * 8 / 7, size);
  return {.normalisation = normalisation};
}

Array Task::seen(const Array& picture) const {
  return size > 0 ? data::centre_crop(data::resize_short_side(picture, size * 8 / 7), size) : picture;
}

data::Transform Task::training_transform(const TrainingOptions& options) const {
  check(options.jitter == 0 || train.image_shape[2] == 3, "--jitter ", options.jitter, ": ", train.name,
        " has pictures with ", train.image_shape[2], " channels, expected the 3 of colour");
  data::Transform transform = examples::training_transform(options, normalisation);
  transform.random_resized = size;
  if (size > 0) transform.pad = 0;
  return transform;
}

namespace {

std::string usual_normalisation(const std::string& dataset) {
  if (dataset == "folder") return "imagenet";
  return dataset == "synthetic" ? "tf" : dataset;
}

}  // namespace

Task load_task(const TaskOptions& asked, const std::string& data_folder, uint64_t seed) {
  TaskOptions options = asked;
  options.init = data::find_file(asked.init, data_folder);
  Task task;
  task.info.model = options.model;
  task.size = options.size;
  std::string norm = options.norm;
  nn::ConvStyle style;
  check(!options.init_partial || !options.init.empty(), "--init-partial: name the file with --init");
  check(options.import.empty() || !options.init.empty(), "--import ", options.import,
        ": name the file with --init");
  if (!options.import.empty()) {
    const nn::ImportRecipe& recipe = nn::import_recipe(options.import);
    style = recipe.style;
    if (norm.empty()) norm = recipe.normalisation;
  } else if (!options.init.empty()) {
    const nn::ModelInfo saved = nn::read_model_info(options.init);
    check(saved.model == options.model, "--init ", options.init, ": it holds a ", saved.model,
          ", but --model is ", options.model);
    style = saved.options.style;
    if (const auto found = saved.notes.find("normalisation"); norm.empty() && found != saved.notes.end())
      norm = found->second;
  }
  if (norm.empty()) norm = usual_normalisation(options.dataset);
  task.normalisation = data::Normalisation::named(norm);

  task.trained_activation = style.activation;
  if (!options.activation.empty()) style.activation = nn::parse_activation(options.activation);

  using data::Split;
  task.train = data::load_dataset(options.dataset, data_folder, options.validate ? Split::fit : Split::train);
  task.test =
      data::load_dataset(options.dataset, data_folder, options.validate ? Split::validation : Split::test);
  if (options.limit > 0) {
    task.train = data::first(task.train, options.limit);
    task.test = data::first(task.test, options.limit);
  }
  const Shape image = task.test_transform().dst_shape(task.train.image_shape);
  check(image[0] == image[1], "[", options.dataset, "] got pictures of ", image, ", expected squares");
  task.info.options = {.in_channels = image[2],
                       .image_size = image[0],
                       .classes = task.train.classes(),
                       .width = options.width,
                       .style = style};
  task.info.notes = {
      {"dataset", options.dataset}, {"normalisation", norm}, {"classes", join_lines(task.test.class_names)}};
  task.model = nn::make_model(options.model, task.info.options);
  if (options.init.empty() || options.init_partial) nn::initialise(*task.model, seed);
  if (!options.import.empty())
    task.not_loaded = nn::import_weights(options.import, options.init, *task.model, options.init_partial,
                                         options.not_finite());
  else if (!options.init.empty())
    task.not_loaded = nn::load_weights(options.init, *task.model, options.init_partial, options.not_finite());
  return task;
}

WatchedPictures watched_pictures(const TaskOptions& options, const Task& task, bool test_curve) {
  if (options.validate) return {"held-out", task.test};
  if (test_curve) return {"test", task.test};
  return {"training (unchanged pictures)", some_of(task.train, task.test.size())};
}

}  // namespace stairgrad::examples
