// Weights from elsewhere: how files of other frameworks become models of the zoo.
#pragma once

#include "checkpoint.h"

namespace stairgrad::nn {

/// The same elements with the axes in another order, both given by letters: o and i are the channels that
/// come out and go in, h and w the kernel's rows and columns. permuted(w, "oihw") makes PyTorch's weights
/// ours.
Array permuted(const Array& x, const std::string& from, const std::string& to = "ohwi");

/// A kind of file: what its names, its axes and the network behind it are. Whoever imports names the recipe,
/// since no file says all of this.
struct ImportRecipe {
  std::string name, about;
  ConvStyle style;            ///< which the weights were trained with
  std::string normalisation;  ///< of the images, for data::Normalisation::named()
  /// The file's arrays under the names, and in the order, of a model whose state is `own`. What has no
  /// counterpart keeps its name.
  std::function<State(const State& foreign, const State& own)> translate;
};

/// pytorch: names of torchvision and of the repositories in zoo/README.md, perhaps behind "module." or
/// "state_dict."; weights (o, i, h, w). tensorflow-folded: the same names, with batch norms folded into
/// biases and TensorFlow's padding. keras: MobileNetV1 as Keras saves it.
const std::vector<ImportRecipe>& import_recipes();
/// Throws argument_error that lists the names for an unknown one.
const ImportRecipe& import_recipe(const std::string& name);

/// A model with the values of a foreign file, and what a model file of ours would say of it; its notes name
/// recipe and normalisation.
struct Imported {
  std::unique_ptr<Model> model;
  ModelInfo info;
};

/// Makes the model `name` of the zoo and fills it from a safetensors file or a file of torch.save (.pth, .pt,
/// .th). The style is the recipe's, whatever `options` say, and the number of classes the file's. Throws
/// format_error that lists every name that is missing, unexpected or of another shape, and for weights that
/// are not finite.
Imported import_model(const std::string& recipe, const std::string& path, const std::string& name,
                      const ModelOptions& options, NotFinite not_finite = NotFinite::refuse);
/// With usual_options(name).
Imported import_model(const std::string& recipe, const std::string& path, const std::string& name);

/// Fills a model that exists. All or nothing, as load_weights(): `partial` loads what fits and returns what
/// did not.
StateMismatch import_weights(const std::string& recipe, const std::string& path, Model& model,
                             bool partial = false, NotFinite not_finite = NotFinite::refuse);

}  // namespace stairgrad::nn
