// How ops on gates and parts of images (image_op.h) are checked and differentiated.
#pragma once

#include "../autograd/ops.h"
#include "image_op.h"

namespace stairgrad::quant {

// Column k of gates, shaped to scale the images of `shape`.
inline Tensor scale_of(const Tensor& gates, int64_t k, const Shape& shape, DType dtype) {
  std::vector<int64_t> extents(static_cast<size_t>(shape.rank()), 1);
  extents[0] = shape[0];
  return cast(reshape(slice(gates, 1, k, k + 1), Shape(extents)), dtype);
}

// Gradients of gates and parts, where each part is scaled by its gate and gradient_of(k) comes back to it.
template <class F>
Tensors of_parts(const Vjp& v, int inputs, const F& gradient_of) {
  const Tensor& gates = v.input(0);
  Tensors result(static_cast<size_t>(inputs));
  Tensors to_gates;
  for (int k = 1; k < inputs; ++k) {
    const Tensor u = gradient_of(k);
    if (v.needs(k)) result[static_cast<size_t>(k)] = u * scale_of(gates, k - 1, u.shape(), u.dtype());
    if (!v.needs(0)) continue;
    Axes pixels;
    for (int axis = 1; axis < u.rank(); ++axis) pixels.push_back(axis);
    to_gates.push_back(reshape(cast(sum(u * v.input(k), pixels), gates.dtype()), {u.dim(0), 1}));
  }
  if (v.needs(0)) result[0] = concat(to_gates, 1);
  return result;
}

// Checks shapes and applies `op`.
template <class O>
Tensor of_gates_and_parts(O op, const Tensor& gates, const Tensors& parts) {
  check(!parts.empty() && gates.rank() == 2 && gates.dim(1) == static_cast<int64_t>(parts.size()), "[",
        op.name(), "] got gates ", gates.shape(), " for ", parts.size(), " parts, expected (n, parts)");
  for (const Tensor& part : parts)
    check(part.shape() == parts[0].shape() && part.rank() >= 2 && part.dim(0) == gates.dim(0), "[", op.name(),
          "] got a part ", part.shape(), " beside ", parts[0].shape(), " and gates ", gates.shape(),
          ", expected equal shapes with a row for each image");
  Tensors in = {gates};
  in.insert(in.end(), parts.begin(), parts.end());
  op.inputs = static_cast<int>(in.size());
  return apply_op(std::move(op), in);
}

}  // namespace stairgrad::quant
