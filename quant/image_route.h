// Parts of images for layers whose weights, too, have other bits for each image.
#pragma once

#include "image_op.h"

namespace stairgrad::quant {

/// What a layer reads whose weights, too, have other bits for each image: every image's part in the channels
/// of its candidate, zeros in those of others. (n, ..., c) -> (n, ..., parts * c); within each of `groups`
/// groups of channels the parts stand side by side, as the weights do in side_by_side(). A layer then makes
/// of an image what the candidate's weights make of its part. The gradient is that of the parts times their
/// gates, side by side.
struct ImageRouteOp final : ImageOp {
  int64_t groups;

  ImageRouteOp(int64_t groups, int column) : ImageOp(column), groups(groups) {}
  std::string_view name() const override { return "image_route"; }
  Arrays forward(const Arrays& in) const override;
  Tensors vjp(const Vjp& v) const override;
  Tensors decompose(const Tensors& in) const override;
};
Tensor image_route(const Tensor& gates, const Tensors& parts, int64_t groups, int column);
/// Weights (oc, ..., ic / groups) of several candidates for what image_route() gives: joined along the last
/// axis.
Tensor side_by_side(const Tensors& weights);

}  // namespace stairgrad::quant
