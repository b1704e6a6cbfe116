// Axes of reductions, and the rows that operations along several axes work on.
#pragma once

#include "../kernels/reduce.h"
#include "tensor.h"

namespace stairgrad {

using kernels::Axes;

/// Axes as ascending numbers from 0; none means all. `op` names the caller in the error for an axis that does
/// not exist or comes twice.
Axes resolve_axes(std::string_view op, const Axes& axes, int rank);

/// `shape` with the given (resolved) axes taken out.
Shape without_axes(const Shape& shape, const Axes& axes);
/// `shape` with extent 1 at the given (resolved) axes.
Shape with_unit_axes(const Shape& shape, const Axes& axes);

/// x with the given (resolved) axes moved behind the others and merged into one: (rows, elements).
Tensor to_rows(const Tensor& x, const Axes& axes);
/// The inverse: from (rows, elements) back to `shape`.
Tensor from_rows(const Tensor& rows, const Shape& shape, const Axes& axes);

}  // namespace stairgrad
