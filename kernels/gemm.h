// Matrix products on OpenBLAS.
#pragma once

#include "array.h"

namespace stairgrad::kernels {

/// op(a) * op(b), where op transposes the last two axes if asked. a (..., m, k), b (..., k, n) with equal
/// leading axes (batched), or b of rank 2 (one product for all leading axes of a, which then must not be
/// transposed). f32 or f64; bf16 inputs are computed in f32 and rounded.
Array matmul(const Array& a, const Array& b, bool transpose_a = false, bool transpose_b = false);

}  // namespace stairgrad::kernels
