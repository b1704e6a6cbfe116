// Convolution by plain loops: the oracle of the fast kernels, the fallback where there is none, and what f64
// runs on.
#pragma once

#include "../conv.h"

namespace stairgrad::kernels {

/// The array that is computed from the other two: dst = C(src, weights), src = D(dst, weights) or
/// weights = W(src, dst).
enum class ConvOp { forward, backward_data, backward_weights };

constexpr const char* name_of(ConvOp op) {
  return op == ConvOp::forward         ? "conv2d"
         : op == ConvOp::backward_data ? "conv2d_backward_data"
                                       : "conv2d_backward_weights";
}

/// The three arrays that a convolution ties together; src and dst stand for their gradients as well.
struct ConvArrays {
  Array src;         ///< (n, h, w, ic)
  Array weights;     ///< (oc, kh, kw, ic / groups)
  Array dst;         ///< (n, oh, ow, oc)
  Array scale = {};  ///< f32 (oc), factors of C's result; or none
};

namespace reference {

/// Computes the array that `op` names; all f32 or all f64.
void conv2d(ConvOp op, ConvArrays arrays, const Conv2dOptions& options);

/// Exact sums of u8 codes times s8 weights, with `padding_code` at padding positions; dst is s32.
void conv2d_codes(ConvArrays arrays, const Conv2dOptions& options, int padding_code);

}  // namespace reference
}  // namespace stairgrad::kernels
