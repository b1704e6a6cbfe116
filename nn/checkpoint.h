// Models and training runs in files: safetensors with metadata, written as a whole or not at all. A checksum
// in the metadata guards the tensors; a file whose tensors are not those that were saved is refused
// (format_error).
#pragma once

#include "model.h"
#include "optimiser.h"

namespace stairgrad::nn {

/// What a model file says beside the values.
struct ModelInfo {
  std::string model;     ///< the name in the zoo; empty: not from the zoo
  ModelOptions options;  ///< what make_model() needs beside the name
  /// Free entries, such as data set, input normalisation and accuracy. Names that begin with "stairgrad." are
  /// taken.
  std::map<std::string, std::string> notes;
};

/// Writes the model's state (layout ohwi).
void save_model(const std::string& path, const Module& model, const ModelInfo& info);
/// What becomes of a file with weights that are NaN or infinite, as a training that diverged leaves them.
enum class NotFinite { refuse, accept };

/// What the file says. Throws format_error if it is not a model file of a known version.
ModelInfo read_model_info(const std::string& path);
/// Makes the model that the file describes and loads its state. Throws format_error naming everything that
/// does not fit, and for weights that are not finite.
std::unique_ptr<Model> load_model(const std::string& path, NotFinite not_finite = NotFinite::refuse);
/// Loads the state of a model file into a model that exists. Throws format_error as load_model(); then
/// nothing has been changed. `partial` loads what fits instead and returns what did not.
StateMismatch load_weights(const std::string& path, Module& model, bool partial = false,
                           NotFinite not_finite = NotFinite::refuse);

/// A training run at one moment: everything it needs to go on as if it had never stopped, bit for bit. Random
/// numbers are functions of the seed and of counters, so they need no state of their own.
struct Checkpoint {
  std::map<std::string, State> parts;       ///< "model", "optimiser" ...; names without '/'
  std::map<std::string, int64_t> counters;  ///< seed, epoch, batch ...
  std::map<std::string, std::string>
      notes;  ///< what must not change between the runs, such as the model's name
};

void save_checkpoint(const std::string& path, const Checkpoint& checkpoint);
/// Throws format_error if the file is not a checkpoint of a known version.
Checkpoint load_checkpoint(const std::string& path);
/// Copies the arrays of `checkpoint` into those of `current` (which share the memory of the modules they come
/// from) and its counters over the current ones. All or nothing: throws argument_error that lists every part,
/// array, counter and note that differs.
void restore(const Checkpoint& checkpoint, Checkpoint& current);

}  // namespace stairgrad::nn
