// JSON text, parsed strictly. Internal: nlohmann's header stays out of the public headers, so only .cpp files
// include this one.
#pragma once

#include <nlohmann/json.hpp>

#include "file.h"

namespace stairgrad::data {

using Json = nlohmann::json;

/// The value of a JSON text. Stricter than nlohmann's parser: refuses duplicate keys, nesting deeper than 64,
/// integers and floats that do not fit, a byte-order mark, and texts of more than `limit` bytes. Throws
/// format_error with line and column, and an offset that counts from `base` bytes before the text.
Json parse_json(ByteView bytes, const std::string& path, uint64_t limit = 16 << 20, uint64_t base = 0);
Json read_json(const std::string& path);

}  // namespace stairgrad::data
