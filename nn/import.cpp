#include "import.h"

#include <algorithm>

#include "../data/formats/pth.h"
#include "../kernels/movement.h"

namespace stairgrad::nn {
namespace {

bool take_prefix(std::string& name, const std::string& prefix) {
  if (!name.starts_with(prefix)) return false;
  name.erase(0, prefix.size());
  return true;
}

void replace(std::string& name, const std::string& from, const std::string& to) {
  if (const size_t at = name.find(from); at != std::string::npos) name.replace(at, from.size(), to);
}

// Puts an array with these axes into `state`, in our order.
void enter(State& state, const State& own, const std::string& name, Array value, const std::string& axes) {
  const auto found = own.find(name);
  const Shape shape = found == own.end() ? value.shape() : found->second.shape();
  if (value.rank() == 2 && shape.rank() == 4 && value.size() == found->second.size())
    value =
        value.reshape({shape[0], shape[3], shape[1], shape[2]});  // reads a flattened map, (c, h, w) there
  if (value.rank() == 4) value = permuted(value, axes);
  if (value.rank() == 4 && shape.rank() == 2 && value.dim(1) == 1 && value.dim(2) == 1)
    value = value.reshape({value.dim(0), value.dim(3)});  // fully connected here, a 1x1 convolution there
  check(state.emplace(name, value).second, "two of its arrays are ", name);
}

// --- PyTorch ---

// What wraps a state_dict on its way into a file.
const char* const wrappers[] = {"state_dict.", "model_state_dict.", "module.", "model.", "net."};

// Repositories differ in what they call the shortcut and the classifier.
std::string aliased(std::string name) {
  replace(name, "shortcut.", "downsample.");
  if (name.starts_with("linear.")) replace(name, "linear.", "fc.");
  return name;
}

std::string pytorch_name(const std::string& foreign, const State& own) {
  std::string name = foreign;
  for (bool unwrapped = true; unwrapped;) {
    if (own.count(name)) return name;
    if (own.count(aliased(name))) return aliased(name);
    unwrapped = false;
    for (const char* wrapper : wrappers) unwrapped = unwrapped || take_prefix(name, wrapper);
  }
  return foreign;
}

State from_pytorch(const State& foreign, const State& own) {
  State state;
  for (const auto& [name, value] : foreign)
    if (!name.ends_with("num_batches_tracked"))  // a counter, of no use in evaluation
      enter(state, own, pytorch_name(name, own), value, "oihw");
  return state;
}

// --- Keras ---

// "conv_pw_3_bn" -> "model.3.4": the layers of MobileNetV1. Empty if it is none.
std::string keras_layer(std::string name) {
  if (name == "conv1") return "model.0.0";
  if (name == "conv1_bn") return "model.0.1";
  if (name == "conv_preds") return "fc";
  const bool depthwise = take_prefix(name, "conv_dw_");
  if (!depthwise && !take_prefix(name, "conv_pw_")) return "";
  const bool norm = name.ends_with("_bn");
  if (norm) name.resize(name.size() - 3);
  return text("model.", name, '.', (depthwise ? 0 : 3) + norm);
}

State from_keras(const State& foreign, const State& own) {
  struct Variable {
    std::string_view keras;
    const char *ours, *axes;
  };
  static constexpr Variable variables[] = {{"kernel:0", "weight", "hwio"},
                                           {"depthwise_kernel:0", "weight", "hwoi"},
                                           {"bias:0", "bias", ""},
                                           {"gamma:0", "weight", ""},
                                           {"beta:0", "bias", ""},
                                           {"moving_mean:0", "running_mean", ""},
                                           {"moving_variance:0", "running_var", ""}};
  State state;
  for (const auto& [name, value] : foreign) {
    const size_t slash = name.find('/');
    const std::string variable = slash == std::string::npos ? "" : name.substr(slash + 1);
    const auto* found = std::ranges::find(variables, variable, &Variable::keras);
    const bool known = found != std::end(variables);
    const std::string own_name = keras_layer(name.substr(0, slash)) + '.' + (known ? found->ours : "");
    if (own.count(own_name))
      enter(state, own, own_name, value, found->axes);
    else
      state[name] = value;
  }
  return state;
}

State read(const std::string& path, NotFinite not_finite) {
  const State state = path.ends_with(".safetensors") ? data::load_safetensors(path, data::Layout::any).tensors
                                                     : data::load_pth(path).tensors;
  if (not_finite == NotFinite::refuse) data::check_finite(state, path);
  return state;
}

State translated(const ImportRecipe& recipe, const std::string& path, const State& foreign,
                 const Model& model) {
  try {
    return recipe.translate(foreign, model.state());
  } catch (const argument_error& error) {
    throw format_error(path, 0, error.what());
  }
}

StateMismatch fill(Model& model, const State& values, const std::string& path, bool partial) {
  try {
    return model.load_state(values, partial);
  } catch (const argument_error& error) {
    throw format_error(path, 0, error.what());
  }
}

}  // namespace

Array permuted(const Array& x, const std::string& from, const std::string& to) {
  std::vector<int> order;
  for (const char axis : to)
    if (const size_t at = from.find(axis); at != std::string::npos) order.push_back(static_cast<int>(at));
  check(from.size() == to.size() && order.size() == to.size() && x.rank() == static_cast<int>(from.size()),
        "[permuted] got an array ", x.shape(), " and the axes ", from, " and ", to,
        ", expected one letter an axis, the same in both");
  return kernels::transpose(x, order);
}

const std::vector<ImportRecipe>& import_recipes() {
  static const std::vector<ImportRecipe> recipes = {
      {"pytorch", "PyTorch's weights by torchvision's names", {}, "imagenet", from_pytorch},
      {"tensorflow-folded",
       "TensorFlow's weights by torchvision's names, batch norms folded",
       {.folded = true, .same_padding = true},
       "tf",
       from_pytorch},
      {"keras", "MobileNetV1 of Keras", {.same_padding = true, .eps = 1e-3}, "tf", from_keras}};
  return recipes;
}

const ImportRecipe& import_recipe(const std::string& name) {
  std::string known;
  for (const ImportRecipe& recipe : import_recipes()) {
    if (recipe.name == name) return recipe;
    known += ' ' + recipe.name;
  }
  throw argument_error(text("[import] got the recipe '", name, "', expected one of:", known));
}

Imported import_model(const std::string& recipe_name, const std::string& path, const std::string& name,
                      const ModelOptions& options, NotFinite not_finite) {
  const ImportRecipe& recipe = import_recipe(recipe_name);
  const State foreign = read(path, not_finite);
  Imported result;
  result.info = {name, options, {{"import", recipe.name}, {"normalisation", recipe.normalisation}}};
  result.info.options.style = recipe.style;
  result.model = make_model(name, result.info.options);
  // The last bias has an element a class.
  const std::string last = result.model->parameters().back().name;
  State values = translated(recipe, path, foreign, *result.model);
  const auto bias = values.find(last);
  if (bias != values.end() && bias->second.size() != options.classes && bias->second.size() > 0) {
    result.info.options.classes = bias->second.size();
    result.model = make_model(name, result.info.options);
    values = translated(recipe, path, foreign, *result.model);
  }
  fill(*result.model, values, path, /*partial=*/false);
  return result;
}

Imported import_model(const std::string& recipe, const std::string& path, const std::string& name) {
  return import_model(recipe, path, name, usual_options(name));
}

StateMismatch import_weights(const std::string& recipe, const std::string& path, Model& model, bool partial,
                             NotFinite not_finite) {
  return fill(model, translated(import_recipe(recipe), path, read(path, not_finite), model), path, partial);
}

}  // namespace stairgrad::nn
