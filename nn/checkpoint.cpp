#include "checkpoint.h"

#include <cstdint>

#include "../data/formats/json_fields.h"
#include "../data/formats/safetensors.h"

namespace stairgrad::nn {
namespace {

using data::Json;
using data::JsonFields;
using data::SafeTensors;

constexpr const char* version = "1";
constexpr const char* model_format = "stairgrad.model";
constexpr const char* checkpoint_format = "stairgrad.checkpoint";
constexpr const char* prefix = "stairgrad.";

void save(const std::string& path, SafeTensors& file, const char* format) {
  file.metadata["stairgrad.format"] = format;
  file.metadata["stairgrad.version"] = version;
  data::seal(file);
  data::save_safetensors(path, file);
}

std::string entry(const SafeTensors& file, const std::string& path, const std::string& key) {
  const auto found = file.metadata.find(key);
  if (found == file.metadata.end()) throw format_error(path, 0, "its metadata have no entry " + key);
  return found->second;
}

SafeTensors open(const std::string& path, const std::string& format) {
  SafeTensors file = data::load_safetensors(path);
  const std::string got = entry(file, path, "stairgrad.format"),
                    its_version = entry(file, path, "stairgrad.version");
  if (got != format) throw format_error(path, 0, text("it is a ", got, " file, expected ", format));
  if (its_version != version)
    throw format_error(path, 0, text("it has version ", its_version, " of the format, expected ", version));
  data::check_seal(file, path);
  return file;
}

Json parse(const SafeTensors& file, const std::string& path, const std::string& key) {
  const std::string words = entry(file, path, key);
  const data::ByteView bytes(reinterpret_cast<const uint8_t*>(words.data()), words.size());
  Json json = data::parse_json(bytes, path + ", " + key);
  if (!json.is_object()) throw format_error(path, 0, key + " is not an object");
  return json;
}

// Notes are the metadata that are not ours.
std::map<std::string, std::string> notes_of(const SafeTensors& file) {
  std::map<std::string, std::string> notes;
  for (const auto& [key, value] : file.metadata)
    if (key != "layout" && !key.starts_with(prefix)) notes[key] = value;
  return notes;
}

void add_notes(SafeTensors& file, const std::map<std::string, std::string>& notes) {
  for (const auto& [key, value] : notes) {
    check(key != "layout" && !key.starts_with(prefix), "[save] got the note ", key,
          "; layout and names that begin with stairgrad. are taken");
    file.metadata[key] = value;
  }
}

// Files of networks in the usual style do not mention it; those with ReLU, not their activation.
ConvStyle style_of(const JsonFields& options, const std::string& path) {
  if (!options.has("style")) return {};
  const JsonFields fields(options.object("style"), path, "stairgrad.options: style");
  ConvStyle style{fields.boolean("folded"), fields.boolean("same_padding"), fields.number<double>("eps")};
  if (!fields.has("activation")) return style;
  try {
    style.activation = parse_activation(fields.string("activation"));
  } catch (const argument_error& error) {
    fields.fail(error.what());
  }
  return style;
}

ModelInfo info_of(const SafeTensors& file, const std::string& path) {
  constexpr int64_t most = 1'000'000;
  ModelInfo info;
  info.model = entry(file, path, "stairgrad.model");
  const Json json = parse(file, path, "stairgrad.options");
  const JsonFields options(json, path, "stairgrad.options");
  info.options.in_channels = options.integer("in_channels", 1, most);
  info.options.image_size = options.integer("image_size", 1, most);
  info.options.classes = options.integer("classes", 1, most);
  info.options.width = options.number<double>("width");
  if (!(info.options.width > 0 && info.options.width <= 1000))
    options.fail(text("'width': got ", info.options.width, ", expected a number above 0 and up to 1000"));
  info.options.style = style_of(options, path);
  info.notes = notes_of(file);
  return info;
}

// A model may have more elements than its file, which is then refused by the names that it lacks: any network
// of the zoo in its usual size. More than that is refused before it is made.
constexpr int64_t room = int64_t{1} << 25;

int64_t elements_of(const SafeTensors& file) {
  int64_t elements = 0;
  for (const auto& [name, array] : file.tensors) elements += array.size();
  return elements;
}

StateMismatch fill(Module& model, const SafeTensors& file, const std::string& path, bool partial,
                   NotFinite not_finite) {
  if (not_finite == NotFinite::refuse) data::check_finite(file.tensors, path);
  try {
    return model.load_state(file.tensors, partial);
  } catch (const argument_error& error) {
    throw format_error(path, 0, error.what());
  }
}

}  // namespace

void save_model(const std::string& path, const Module& model, const ModelInfo& info) {
  SafeTensors file{model.state(), {}};
  add_notes(file, info.notes);
  const ModelOptions& o = info.options;
  file.metadata["stairgrad.model"] = info.model;
  Json options = {{"in_channels", o.in_channels},
                  {"image_size", o.image_size},
                  {"classes", o.classes},
                  {"width", o.width}};
  if (o.style != ConvStyle{}) {
    options["style"] = {
        {"folded", o.style.folded}, {"same_padding", o.style.same_padding}, {"eps", o.style.eps}};
    if (o.style.activation != Activation::relu)
      options["style"]["activation"] = to_string(o.style.activation);
  }
  file.metadata["stairgrad.options"] = options.dump();
  save(path, file, model_format);
}

ModelInfo read_model_info(const std::string& path) { return info_of(open(path, model_format), path); }

std::unique_ptr<Model> load_model(const std::string& path, NotFinite not_finite) {
  const SafeTensors file = open(path, model_format);
  const ModelInfo info = info_of(file, path);
  std::unique_ptr<Model> model;
  try {
    const SizeLimit limit(elements_of(file) + room);
    model = make_model(info.model, info.options);
  } catch (const argument_error& error) {
    throw format_error(path, 0, text("stairgrad.options: ", error.what()));
  }
  fill(*model, file, path, /*partial=*/false, not_finite);
  return model;
}

StateMismatch load_weights(const std::string& path, Module& model, bool partial, NotFinite not_finite) {
  return fill(model, open(path, model_format), path, partial, not_finite);
}

void save_checkpoint(const std::string& path, const Checkpoint& checkpoint) {
  SafeTensors file;
  add_notes(file, checkpoint.notes);
  file.metadata["stairgrad.counters"] = Json(checkpoint.counters).dump();
  for (const auto& [part, state] : checkpoint.parts) {
    check(part.find('/') == std::string::npos, "[save_checkpoint] got the part ", part,
          ", expected a name without /");
    for (const auto& [name, array] : state) file.tensors[part + '/' + name] = array;
  }
  save(path, file, checkpoint_format);
}

Checkpoint load_checkpoint(const std::string& path) {
  const SafeTensors file = open(path, checkpoint_format);
  Checkpoint checkpoint;
  checkpoint.notes = notes_of(file);
  const Json counters = parse(file, path, "stairgrad.counters");
  for (const auto& [name, value] : counters.items()) {
    const bool too_large = value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX};
    if (!value.is_number_integer() || too_large)
      throw format_error(
          path, 0, text("the counter ", name, " is ", value.dump(), ", expected a whole number of 64 bits"));
    checkpoint.counters[name] = value.get<int64_t>();
  }
  for (const auto& [name, array] : file.tensors) {
    const size_t slash = name.find('/');
    if (slash == std::string::npos) throw format_error(path, 0, "the array " + name + " belongs to no part");
    checkpoint.parts[name.substr(0, slash)][name.substr(slash + 1)] = array;
  }
  return checkpoint;
}

void restore(const Checkpoint& checkpoint, Checkpoint& current) {
  std::string differences;
  const auto add = [&](const auto&... words) {
    differences += text(differences.empty() ? "" : "; ", words...);
  };
  for (const auto& [part, state] : current.parts) {
    const auto found = checkpoint.parts.find(part);
    const StateMismatch mismatch =
        compare(state, found == checkpoint.parts.end() ? State{} : found->second, /*same_types=*/true);
    if (!mismatch.none()) add("in the part ", part, ", ", mismatch.str());
  }
  for (const auto& [part, state] : checkpoint.parts)
    if (!current.parts.count(part)) add("it has a part ", part, ", which this run has not");
  for (const auto& [name, value] : current.counters)
    if (!checkpoint.counters.count(name)) add("it has no counter ", name);
  for (const auto& [name, value] : current.notes) {
    const auto found = checkpoint.notes.find(name);
    const std::string saved = found == checkpoint.notes.end() ? "nothing" : found->second;
    if (saved != value) add("its ", name, " is ", saved, ", that of this run ", value);
  }
  for (const auto& [name, value] : checkpoint.notes)
    if (!current.notes.count(name)) add("its ", name, " is ", value, ", that of this run nothing");
  check(differences.empty(), "[restore] the checkpoint is of another run: ", differences);
  for (auto& [part, state] : current.parts)
    for (auto& [name, array] : state) array.assign(checkpoint.parts.at(part).at(name));
  for (auto& [name, value] : current.counters) value = checkpoint.counters.at(name);
}

}  // namespace stairgrad::nn
