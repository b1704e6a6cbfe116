// What a JPEG file holds, found without decoding it: for image.cpp, whose decoder trusts much and fills in
// what is missing.
#pragma once

#include "file.h"

namespace stairgrad::data {

/// Walks the segments and the coded data up to the end marker FF D9, and returns where the coded data of each
/// scan end. Throws format_error for segments that are damaged, tables that are missing, kinds that are not
/// supported, and files that are cut short.
std::vector<uint64_t> check_jpeg(ByteView bytes, const std::string& path);

}  // namespace stairgrad::data
