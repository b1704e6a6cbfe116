// Crops and mirrors of images that are in the making, or made.
#pragma once

#include "../../autograd/tensor.h"
#include "../../kernels/random.h"

namespace stairgrad::quant::datafree {

/// One random box for the whole batch, of 50 to 100 % of the area and proportion 3/4 to 4/3, stretched to the
/// images' size again, mirrored by a toss; gradients reach the pixels. images (n, h, w, c).
Tensor crop_and_flip(const Tensor& images, Philox rng);

/// The same with a box and a toss for each image. images f32.
Array crop_and_flip_each(const Array& images, Philox rng);

/// Mean squared difference of neighbours in both directions.
Tensor total_variation(const Tensor& images);

}  // namespace stairgrad::quant::datafree
