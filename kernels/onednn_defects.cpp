#include "onednn_defects.h"

namespace stairgrad::kernels::onednn {
namespace {

/// Rows or columns of a convolution.
struct Axis {
  int64_t results, taps, extent, stride, dilation, padding;

  /// True when `result` reads a pixel of src through `tap`, not padding.
  bool meet(int64_t result, int64_t tap) const {
    const int64_t at = result * stride + tap * dilation - padding;
    return at >= 0 && at < extent;
  }

  bool every_result_sees_src() const {
    return each_has_one(results, taps, [&](int64_t result, int64_t tap) { return meet(result, tap); });
  }
  bool every_tap_sees_src() const {
    return each_has_one(taps, results, [&](int64_t tap, int64_t result) { return meet(result, tap); });
  }

 private:
  /// True when for each i < n there is a j < m with holds(i, j).
  template <class Relation>
  static bool each_has_one(int64_t n, int64_t m, const Relation& holds) {
    for (int64_t i = 0; i < n; ++i) {
      int64_t j = 0;
      while (j < m && !holds(i, j)) ++j;
      if (j == m) return false;
    }
    return true;
  }
};

}  // namespace

bool is_sound(ConvOp op, DType type, const Shape& src, const Shape& weights, const Conv2dOptions& o) {
  const Shape dst = conv2d_shape(src, weights, o);
  const Axis rows{dst[1], weights[1], src[1], o.stride[0], o.dilation[0], o.padding[0]};
  const Axis columns{dst[2], weights[2], src[2], o.stride[1], o.dilation[1], o.padding[2]};
  // 2.6.3, brgconv: where a result sees padding alone, it reads outside its memory.
  if (!rows.every_result_sees_src() || !columns.every_result_sees_src()) return false;
  // 2.6.3, jit_bf16: the gradient of a tap that sees padding alone is not written.
  if (op == ConvOp::backward_weights && type == DType::bf16 &&
      !(rows.every_tap_sees_src() && columns.every_tap_sees_src()))
    return false;
  // 3.7.2, brg_conv_fwd: wrong for one channel a group, one result a row and a stride.
  return weights[3] > 1 || columns.results > 1 || columns.stride == 1;
}

}  // namespace stairgrad::kernels::onednn
