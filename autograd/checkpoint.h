// Recomputation: less memory for more arithmetic.
#pragma once

#include <functional>

#include "tensor.h"

namespace stairgrad {

/// function(inputs), of which only inputs and outputs are kept: the walk of grad() runs the function again to
/// get the values it needs (Chen et al., "Training deep nets with sublinear memory cost", 2016). Gradients of
/// any order flow to `inputs` and to the parameters that the function uses by itself. The function must
/// compute the same at each run; see recomputing() for side effects.
Tensors checkpoint(std::function<Tensors(const Tensors&)> function, const Tensors& inputs);

/// True while a checkpointed function runs again: running statistics and the like have been updated before.
bool recomputing();

}  // namespace stairgrad
