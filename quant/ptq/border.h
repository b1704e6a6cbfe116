// Rounding with learned borders, after AQuant (Li et al., "Efficient adaptive activation rounding", 2022):
// where between two levels a value is rounded up is learned, not a half.
#pragma once

#include "../../autograd/quantized.h"

namespace stairgrad::quant {

/// y = (code - z) s with p = x / s + z, q = floor(p), and code = q + 1 where p - q >= border[q], else q;
/// border has one value for each gap between codes. dx and dstep are LSQ's; dborder[q] = -sum u s sigma'((p -
/// q - border[q]) / T) / T with T = 0.1, the derivative of a soft step. x f32, step (1), border (hi). Such a
/// grid of unequal cells has no integer form here.
Tensor quantize_with_border(const Tensor& x, const Tensor& step, const Tensor& border, const Grid& grid);

}  // namespace stairgrad::quant
