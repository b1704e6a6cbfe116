// Depthwise convolution by loops of our own (simd/depthwise.cpp): they run at the speed of memory.
#pragma once

#include "reference/conv.h"

namespace stairgrad::kernels::depthwise {

/// True for one filter a channel, at least 16 channels, 3 x 3 or 5 x 5 taps, stride 1 or 2 and no dilation.
bool is_suited(const ConvArrays& arrays, const Conv2dOptions& options);

/// Computes the array that `op` names from the other two; f32, or bf16 with weights of either type (and f32
/// weight gradients). Results do not depend on the number of threads.
void conv2d(ConvOp op, ConvArrays arrays, const Conv2dOptions& options);

}  // namespace stairgrad::kernels::depthwise
