// What QDrop does to the tensors of a block: parts of them stay floats.
#pragma once

#include "../../autograd/quantized.h"
#include "loops.h"

namespace stairgrad::quant {

/// What is chosen with probability `keep` (in steps of 1/256), by the random numbers of (seed, stream).
/// Throws argument_error unless 0 <= keep <= 1.
Choice chosen(double keep, uint64_t seed, uint64_t stream);

/// Element by element: of a if it is chosen, else of b. f32.
Array mix(const Array& a, const Array& b, const Choice& choice);

/// x on its grid where it is chosen, else x as it is (QDrop, eq. 11, of activations). The first axis counts
/// images; those from `images` on are quantized throughout. `step` (1) is the grid's, and learns: where x was
/// quantized, dx and dstep are LSQ's, elsewhere dx = u. f32, or f64 for gradient checks.
Tensor quantize_with_drop(const Tensor& x, const Tensor& step, const Grid& grid, const Choice& choice,
                          int64_t images);

/// The function whose derivative that promises: codes and choices are those at `at`.
Tensor drop_surrogate(const Tensor& x, const Tensor& step, const Array& at, const Array& at_step,
                      const Grid& grid, const Choice& choice, int64_t images);

/// Mean over images and pixels of the sum over channels of (a - target)^2: what blocks are reconstructed by.
Tensor reconstruction_loss(const Tensor& a, const Array& target);

}  // namespace stairgrad::quant
