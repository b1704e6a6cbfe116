// Order of elements.
#pragma once

#include "array.h"

namespace stairgrad::kernels {

/// The s32 positions along the last axis that put its elements in order; equal elements keep their order, NaN
/// comes last.
Array argsort(const Array& x, bool descending);

}  // namespace stairgrad::kernels
