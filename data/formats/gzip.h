// Gzip, unpacked in memory.
#pragma once

#include "file.h"

namespace stairgrad::data {

bool is_gzip(ByteView bytes);

/// Unpacks all members of a gzip file. Throws format_error for damage (checksum and length are verified),
/// truncation, trailing bytes, and content larger than `limit`.
Bytes gunzip(ByteView bytes, const std::string& path, uint64_t limit = uint64_t{1} << 30);

}  // namespace stairgrad::data
