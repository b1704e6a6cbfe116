// Values on an integer grid, as autograd sees them.
#pragma once

#include <memory>
#include <vector>

#include "../kernels/conv.h"
#include "../kernels/grid.h"
#include "tensor.h"

namespace stairgrad {

/// The grids of a tensor: one for all of it, or one for each slice of the outermost axis (output channel of a
/// weight). Those of one tensor have the same codes, and differ in scale and, if it is an integer, zero
/// point.
using Grids = std::vector<Grid>;

/// A quantized tensor: what a quantizer gives and what a quantized layer convolves.
struct Quantized {
  Tensor value;  ///< (code - zero_point) * scale as floats, with the quantizer's gradient
  Grids grids;   ///< empty: not quantized after all, value is the tensor as it was
  /// `value` holds integers() as bf16, which is exact, and stands for values: gradients with respect to it
  /// are those with respect to the values. Only conv2d() of two quantized tensors understands it.
  bool codes = false;

  /// True if `value` lies on a grid.
  bool on_grid() const { return !grids.empty(); }
  /// code - zero_point of every element, doubled on the even symmetric grids so that it is an integer; as
  /// f32, which holds it exactly. value = integers() * unit().
  Array integers() const;
  /// Steps of integers() in one step of a grid: 2 on the even symmetric grids, whose levels are half-integer.
  static float fineness(const Grid& g);
  /// What one step of integers() is worth: scale, or scale / 2 on the even symmetric grids. One per grid.
  Array unit() const;
};

/// Convolution of the integers of both sides with exact sums, times the product of the units: f32, the same
/// on every machine, or rounded to bf16 if src has the form `codes`. Gradients are those of the convolution
/// of the values. Throws argument_error if src has more than one grid, or if either has none.
Tensor conv2d(const Quantized& src, const Quantized& weights, const Conv2dOptions& options = {});

}  // namespace stairgrad
