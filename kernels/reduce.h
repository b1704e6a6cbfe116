// Reductions over any set of axes, softmax and index operations along the last axis.
#pragma once

#include <vector>

#include "array.h"

namespace stairgrad::kernels {

using Axes = std::vector<int>;

enum class Reduction { sum, max, min };

/// Reduces over `axes` (negative count from the end; empty means all). With keep_axes they stay with
/// extent 1. Sums are taken in f32 over fixed chunks and in double over chunks, so the result does not depend
/// on the number of threads. An empty sum is 0; an empty max or min throws argument_error.
Array reduce(Reduction kind, const Array& x, const Axes& axes = {}, bool keep_axes = false);

/// Index of the first largest element along the last axis, as s32 of the shape without that axis.
Array argmax(const Array& x);

/// Softmax along the last axis, and its logarithm.
Array softmax(const Array& x);
Array log_softmax(const Array& x);

}  // namespace stairgrad::kernels
