// Masks: the gradient of clipped functions, and random masks.
#pragma once

#include "array.h"
#include "random.h"

namespace stairgrad::kernels {

/// u where x is inside (low, high), or [low, high] if closed, else 0; u and x of one shape and type.
Array pass_inside(const Array& u, const Array& x, double low, double high, bool closed);

/// 1 / keep with probability `keep`, else 0: what dropout multiplies by.
Array random_mask(const Shape& shape, const Philox& rng, double keep, DType dtype);

}  // namespace stairgrad::kernels
