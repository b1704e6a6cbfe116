// IDX, the format of MNIST and Fashion-MNIST (http://yann.lecun.com/exdb/mnist): two zero bytes, a type code,
// the number of extents, the extents as big-endian 32-bit numbers, then the elements.
#pragma once

#include "../../kernels/array.h"
#include "file.h"

namespace stairgrad::data {

/// The u8 array in an IDX file with one to three extents, plain or packed with gzip. Throws format_error that
/// says what was declared and what is there, before it allocates the array.
Array read_idx(const std::string& path);
Array parse_idx(ByteView bytes, const std::string& path);

}  // namespace stairgrad::data
