// Statistics of batch norms, taken anew.
#pragma once

#include <functional>

#include "model.h"

namespace stairgrad::nn {

/// Replaces the running statistics of every BatchNorm2d by plain averages over the batches that `next` gives,
/// as training normalises them, until it gives an empty array: after a change of the network that the moving
/// averages lag behind. Weights stay as they are. Does nothing without batches or batch norms.
void reestimate_batch_norms(Model& model, const std::function<Array()>& next);

}  // namespace stairgrad::nn
