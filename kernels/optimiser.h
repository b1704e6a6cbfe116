// Optimiser updates, one pass over each parameter, in place.
#pragma once

#include "array.h"

namespace stairgrad::kernels {

/// g = gradient + weight_decay * w;  v = momentum * v + g;  w -= lr * (nesterov ? g + momentum * v : v). All
/// f32.
void sgd_step(Array& w, Array& v, const Array& gradient, double lr, double momentum, double weight_decay,
              bool nesterov);

/// AdamW (Loshchilov and Hutter, ICLR'19): decoupled weight decay; `step` counts from 1.
void adamw_step(Array& w, Array& m, Array& v, const Array& gradient, double lr, double beta1, double beta2,
                double eps, double weight_decay, int64_t step);

}  // namespace stairgrad::kernels
