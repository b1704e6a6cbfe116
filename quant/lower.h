// Lowering: the recorded graph of a quantized network becomes integers.
#pragma once

#include "../autograd/recorder.h"
#include "integer/model.h"

namespace stairgrad::quant {

/// Turns a trace of a model in evaluation mode, with its quantizers in place, into an integer model. Batch
/// norm, bias, residual add, ReLU and clamps go into the requantisation of the convolution before them;
/// weights stay as they were trained. What an image chooses (image_choice.h, image_route.h) becomes
/// alternatives of a value, or of the requantisation behind it. Throws argument_error naming op and layer
/// where the graph has no integer form.
integer::Model lower(const Trace& trace);

}  // namespace stairgrad::quant
