// The quantized evaluation: a lowered network on plain float convolutions of codes, which are exact, and
// grid.h.
#pragma once

#include "model.h"

namespace stairgrad::quant::integer {

/// Every value of the model for `images` (n, h, w, c) f32: codes as u8, floats as f32; indexed like
/// model.values. Shares nothing with the runtime but the model and grid.h, so the two can be compared code by
/// code. `choices` are those of Session::run().
Arrays evaluate(const Model& model, const Array& images, const Array& choices = {});

/// What one layer writes, given the values that it reads.
Array evaluate_layer(const Model& model, const Layer& layer, const Arrays& values, const Array& choices = {});

}  // namespace stairgrad::quant::integer
