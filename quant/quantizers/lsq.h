// The codes of LSQ and LSQ+.
#pragma once

#include "../../kernels/grid.h"

namespace stairgrad::quant {

/// Weights: -2^(b-1) .. 2^(b-1) - 1 (8 bit: -127 .. 127); activations: 0 .. 2^b - 1, with the zero point
/// still 0; a symmetric grid with 1 bit: -1/2, 1/2. The scale is 1.
Grid lsq_codes(int bits, bool weight, bool symmetric);
/// Q_P of the paper: the largest code above zero.
int lsq_positive(const Grid& codes);

}  // namespace stairgrad::quant
