// Where an integer network looks.
#pragma once

#include "session.h"

namespace stairgrad::quant::integer {

/// Grad-CAM of one class for each image of the last run(), at the last feature map: (n, h, w) f32, each map
/// scaled to a largest value of 1. Between that map and the logits a model has averages and one fully
/// connected layer, so the gradient is known without a backward pass: it is the layer's weights, and Grad-CAM
/// is CAM (Zhou et al., CVPR'16). `session` keeps its values. Throws argument_error where other layers lie
/// between, so that what the last layer reads has one pixel.
Array attribution_map(const Model& model, const Session& session, const std::vector<int32_t>& classes);

}  // namespace stairgrad::quant::integer
