// A part for each image: activations whose bits differ from image to image. Lowering makes a table for each
// candidate of it.
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
