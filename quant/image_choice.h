// A part for each image: an input on a grid of its own, or the map of its batch norm behind the layer.
#pragma once

#include "image_op.h"

namespace stairgrad::quant {

/// Row i of the result is row i of the part that image i takes. The gradient is that of
/// sum_k gates[:, k] * parts[k].
struct ImageChoiceOp final : ImageOp {
  using ImageOp::ImageOp;
  std::string_view name() const override { return "image_choice"; }
  Arrays forward(const Arrays& in) const override;
  Tensors vjp(const Vjp& v) const override;
  Tensors decompose(const Tensors& in) const override;
};
Tensor image_choice(const Tensor& gates, const Tensors& parts, int column);

}  // namespace stairgrad::quant
