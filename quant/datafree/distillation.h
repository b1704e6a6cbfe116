// What a quantized network learns from the one it was made of.
#pragma once

#include "../../autograd/tensor.h"
#include "../../kernels/random.h"

namespace stairgrad::quant::datafree {

/// Over what the divergence is averaged. The two differ by the number of classes.
enum class KlReduction {
  batchmean,  ///< over images (IntraQ, HAST)
  mean        ///< over images and classes, as PyTorch's KLDivLoss() does unasked (GDFQ, Qimera)
};

/// T^2 KL(softmax(teacher / T) || softmax(student / T)), logits (n, classes).
Tensor distillation(const Tensor& student, const Tensor& teacher, double temperature, KlReduction reduction);

/// Mean squared difference of the channel attentions of maps (n, h, w, c): the mean square of each channel,
/// the vector of an image scaled to length 1; summed over the maps (HAST). Throws argument_error for
/// different numbers of maps.
Tensor feature_alignment(const Tensors& student, const Tensors& teacher);

/// images + size * sign(slope), slope being the gradient of a loss with respect to them, f32: harder images
/// (HAST's sample difficulty promotion). Where the slope is 0 they stay.
Array perturbed(const Array& images, const Array& slope, double size);

/// Which images of a batch are mixed.
enum class Mixup { off, easy, all };
std::string to_string(Mixup mixup);
/// Throws argument_error that lists what is known.
Mixup parse_mixup(const std::string& name);

struct MixedImages {
  Array images, labels;
};
/// Pairs at random the images that are mixed: x_i <- l x_i + (1 - l) x_j with l ~ Beta(alpha, alpha), labels
/// (n, classes) alike (Zhang et al., ICLR'18). Images with hard[i] = 1 pass unchanged under `easy`. What
/// comes in stays as it is.
MixedImages mix_images(const Array& images, const Array& labels, const std::vector<uint8_t>& hard,
                       Mixup mixup, double alpha, Philox rng);

}  // namespace stairgrad::quant::datafree
