// Checksums of files made right again after a fuzzer has changed them: without that, it would never come past
// them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stairgrad::data {

/// Sets the CRC of every chunk of a PNG that lies within the bytes.
void repair_png(uint8_t* bytes, size_t size);
/// Sets the CRCs of a zip's stored entries, in their own headers and in the central directory.
void repair_zip(uint8_t* bytes, size_t size);
/// Sets the checksum of an integer model whose header can be read.
void repair_integer(uint8_t* bytes, size_t size);

}  // namespace stairgrad::data
