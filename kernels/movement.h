// Copies that rearrange: transpose, strided slice, pad, concat, gather, scatter. Any element type.
#pragma once

#include <vector>

#include "array.h"

namespace stairgrad::kernels {

/// Axis i of the result is axis permutation[i] of x.
Array transpose(const Array& x, const std::vector<int>& permutation);

/// A strided box: along each axis the elements start, start + step, ... below stop.
struct Range {
  int64_t start = 0, stop = 0, step = 1;
  bool operator==(const Range&) const = default;
};
Array slice(const Array& x, const std::vector<Range>& ranges);
/// The adjoint of slice: zeros of `shape` with x written into the box.
Array unslice(const Array& x, const Shape& shape, const std::vector<Range>& ranges);

/// `before[i]` and `after[i]` elements of `value` around axis i.
Array pad(const Array& x, const std::vector<int64_t>& before, const std::vector<int64_t>& after,
          double value = 0);

Array concat(const Arrays& parts, int axis);

/// out[..., j, ...] = x[..., index[j], ...] along `axis`; index is s32 of rank 1.
Array index_select(const Array& x, int axis, const Array& index);
/// The adjoint of index_select: adds x's slices into zeros with extent `size` along `axis`.
Array index_add(const Array& x, int axis, const Array& index, int64_t size);

/// out[i..., j] = x[i..., index[i..., j]] along the last axis; index is s32, leading axes equal.
Array gather(const Array& x, const Array& index);
/// The adjoint of gather: adds into zeros with last extent `size`.
Array scatter_add(const Array& x, const Array& index, int64_t size);

/// (..., depth) with 1 at index; index is s32. Indices outside [0, depth) throw argument_error.
Array one_hot(const Array& index, int64_t depth, DType dtype = DType::f32);

}  // namespace stairgrad::kernels
