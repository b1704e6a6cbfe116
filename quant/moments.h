// Mean and variance of each channel over a batch, through which gradients flow.
#pragma once

#include "../autograd/tensor.h"

namespace stairgrad::quant {

struct Moments {
  Tensor mean, var;  ///< biased variance
};

/// Over all axes of x (..., c) but the last: (c) each, f32 (f64 of f64). One pass over memory forward and one
/// backward. Throws argument_error for an empty x.
Moments batch_moments(const Tensor& x);

/// Over rows and columns of each image of x (n, h, w, c): (n, c) each, f32 (f64 of f64). The variance is
/// unbiased where an image has more than one pixel.
Moments image_moments(const Tensor& x);

}  // namespace stairgrad::quant
