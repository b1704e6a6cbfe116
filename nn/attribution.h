// Where a network looks.
#pragma once

#include <vector>

#include "model.h"

namespace stairgrad::nn {

/// Grad-CAM (Selvaraju et al., ICCV'17, eq. 1 and 2): relu(sum_c a_c f_c) with a_c the gradient of the class
/// logit summed over the map (the mean times h w: scale is lost in normalisation). features (n, h, w, c) must
/// have led to logits (n, classes) on the tape; classes has one index an image. Returns (n, h, w). With
/// create_graph the map is differentiable (second order), and the record of logits stays usable.
Tensor grad_cam(const Tensor& features, const Tensor& logits, const std::vector<int32_t>& classes,
                bool create_graph = false);

/// Grad-CAM of the model's own top class at its last feature map, in evaluation mode; (n, h, w), each map
/// scaled to a largest value of 1 (0 where nothing supports the class).
Array attribution_map(Model& model, const Array& images);

}  // namespace stairgrad::nn
