// Zip archives of stored (not compressed) entries, as PyTorch writes them.
#pragma once

#include <map>

#include "file.h"

namespace stairgrad::data {

bool is_zip(ByteView bytes);

/// The entries of an archive, by name; the views point into `bytes`. The central directory decides what is in
/// the archive, and each entry's own header must agree with it. Throws format_error for compressed or
/// encrypted entries, names that occur twice, sizes that lie, and wrong checksums. Nothing is written
/// anywhere.
std::map<std::string, ByteView> read_zip(ByteView bytes, const std::string& path);

}  // namespace stairgrad::data
