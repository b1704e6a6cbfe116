// Spatial pooling of (n, h, w, c) and the adjoints.
#pragma once

#include <array>

#include "array.h"

namespace stairgrad {

struct Pool2dOptions {
  std::array<int64_t, 2> kernel{2, 2};
  std::array<int64_t, 2> stride{2, 2};
  std::array<int64_t, 2> padding{0, 0};
  bool count_padding = true;  ///< average pool: divide by the whole window, as PyTorch does

  static Pool2dOptions with(int64_t kernel, int64_t stride, int64_t padding = 0) {
    return {{kernel, kernel}, {stride, stride}, {padding, padding}};
  }
  bool operator==(const Pool2dOptions&) const = default;
};

namespace kernels {

Shape pool2d_shape(const Shape& src, const Pool2dOptions& options);

/// Average over each window.
Array avg_pool2d(const Array& x, const Pool2dOptions& options);
Array avg_pool2d_backward(const Array& diff_y, const Shape& src_shape, const Pool2dOptions& options);

/// Largest element of each window; the first one wins a tie. `index` (s32, result shape) is its position in
/// x's (h * w) plane; padding is never chosen. Codes (u8) are pooled too.
struct MaxPool {
  Array y, index;
};
MaxPool max_pool2d(const Array& x, const Pool2dOptions& options);
/// out[n, index] += g: the adjoint of picking; and picking itself for given indices.
Array max_pool2d_scatter(const Array& g, const Array& index, const Shape& src_shape);
Array max_pool2d_gather(const Array& x, const Array& index);

/// (n, h, w, c) -> (n, 1, 1, c), and its adjoint.
Array global_avg_pool(const Array& x);
Array global_avg_pool_backward(const Array& diff_y, const Shape& src_shape);

}  // namespace kernels
}  // namespace stairgrad
