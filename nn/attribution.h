// Where a network looks.
#pragma once

#include <functional>
#include <vector>

#include "model.h"

namespace stairgrad::nn {

/// Grad-CAM (Selvaraju et al., ICCV'17, eq. 1 and 2): relu(sum_c a_c f_c) with a_c the gradient of the class
/// logit summed over the map (the mean times h w: scale is lost in normalisation). features (n, h, w, c) must
/// have led to logits (n, classes) on the tape; classes has one index an image. Returns (n, h, w), of bf16
/// features in f32. With create_graph the map is differentiable (second order), and the record of logits
/// stays usable.
Tensor grad_cam(const Tensor& features, const Tensor& logits, const std::vector<int32_t>& classes,
                bool create_graph = false);

/// CAM (Zhou et al., CVPR'16): relu(sum_c w_c f_c) with w the class's row of the fully connected layer,
/// weights (classes, c), that follows global average pooling of features (n, h, w, c). There it is Grad-CAM:
/// the gradient does not depend on the features, and first order is enough to differentiate it.
Tensor class_activation_map(const Tensor& features, const Tensor& weights,
                            const std::vector<int32_t>& classes);

/// The index of the largest logit of each image (n, classes), the first of equals.
std::vector<int32_t> top_classes(const Array& logits);

/// How many blocks run before the features that `block` gives: "layer3.2"; empty stands for the last feature
/// map. Throws argument_error with the nearest name for a block that the model has not, and for the head.
size_t blocks_until(const Model& model, const std::string& block);

struct Attribution {
  Tensor map;     ///< (n, h, w): Grad-CAM of `classes` at the features after `blocks` blocks
  Tensor logits;  ///< (n, classes)
  std::vector<int32_t> classes;
};
/// Runs the model, in the mode it is in, and explains it at the features after so many blocks: for the given
/// classes, or for the model's own top class if there are none. With create_graph map and logits are on one
/// tape, differentiable by the parameters; without it they are constants.
Attribution attribute(Model& model, const Tensor& images, size_t blocks,
                      const std::vector<int32_t>& classes = {}, bool create_graph = false);

/// Whatever explains images (n, h, w, c): as attribute() does without create_graph, at the features after
/// `block`, named as in blocks_until().
using Explainer = std::function<Attribution(const Tensor& images, const std::string& block,
                                            const std::vector<int32_t>& classes)>;
/// A network that outlives it, in evaluation mode.
Explainer explainer_of(Model& model);
/// The mean of several maps, each scaled to a largest value of 1, of one class: the given one, or else the
/// first one's top class, since a mean over maps of different classes would explain none. Logits are those of
/// the first. Throws argument_error if there is none.
Explainer mean_of(std::vector<Explainer> explainers);

/// Grad-CAM of the model's own top class at its last feature map, in evaluation mode; (n, h, w), each map
/// scaled to a largest value of 1 (0 where nothing supports the class).
Array attribution_map(Model& model, const Array& images);

/// Maps (n, h, w), each divided by its largest value; maps without a positive value become 0.
Array scaled_to_one(const Array& maps);

}  // namespace stairgrad::nn
