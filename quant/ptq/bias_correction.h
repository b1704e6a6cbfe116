// Bias correction (Nagel et al., ICCV'19, section 4.2, in its empirical form).
#pragma once

#include "../sites.h"

namespace stairgrad::quant {

/// Takes the mean error that quantization causes in each layer's output, over `images` (n, h, w, c), from
/// what follows: the bias, or the running mean of the batch norm. Layers are corrected in order, each with
/// those before it quantized and corrected. `float_model` is the same network before quantization. Returns
/// the layers that were corrected.
int correct_biases(nn::Model& model, nn::Model& float_model, const Array& images);

}  // namespace stairgrad::quant
