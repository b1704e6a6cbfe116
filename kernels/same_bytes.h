// Equality of arrays, bit for bit.
#pragma once

#include <cstring>

#include "array.h"

namespace stairgrad {

/// Whether both hold the same bits: of one type and size, in any shape; or neither has a value.
inline bool same_bytes(const Array& a, const Array& b) {
  if (!a.has_value() || !b.has_value()) return a.has_value() == b.has_value();
  return a.dtype() == b.dtype() && a.bytes() == b.bytes() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

}  // namespace stairgrad
