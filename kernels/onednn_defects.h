// Convolutions that a version of oneDNN gets wrong, found by comparing random ones with plain loops. No
// network in use has them; they run on the reference kernels.
#pragma once

#include "reference/conv.h"

namespace stairgrad::kernels::onednn {

/// False where oneDNN's result cannot be trusted. `type` is that of src.
bool is_sound(ConvOp op, DType type, const Shape& src, const Shape& weights, const Conv2dOptions& options);

}  // namespace stairgrad::kernels::onednn
