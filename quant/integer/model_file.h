// The file of an integer model: safetensors, with the graph as JSON in its metadata, and a checksum of both.
#pragma once

#include <optional>
#include <string>

#include "../../data/formats/file.h"
#include "model.h"

namespace stairgrad::quant::integer {

/// Writes the model as a whole (atomically). Codes of weights take their true bit width.
void save(const Model& model, const std::string& path);

/// Throws format_error for a file that is not a whole, valid integer model.
Model load(const std::string& path);
/// The same for bytes that were read already; `path` is for the messages.
Model parse(data::ByteView bytes, const std::string& path);

/// load() for any safetensors file: none if it holds something else. Throws format_error for another kind of
/// file.
std::optional<Model> load_if_integer(const std::string& path);

}  // namespace stairgrad::quant::integer
