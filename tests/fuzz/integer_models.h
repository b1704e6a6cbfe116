// Integer models for the fuzzers: damage that leaves the graph JSON, and what is done with a file.
#pragma once

#include "data/formats/file.h"
#include "kernels/random.h"

namespace stairgrad {

/// Makes a few numbers of the graph extreme or others, drops, doubles or exchanges entries of lists, drops
/// fields, and seals the file again. Bytes without a graph come back as they are.
data::Bytes damage_graph(const data::Bytes& file, const Philox& rng, uint64_t& index);

/// Parses a model, and runs it if it is small. Whether it ran; throws format_error for what is refused.
bool run_integer_model(const data::Bytes& file);

}  // namespace stairgrad
