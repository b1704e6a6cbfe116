#include "image_choice.h"

#include <cstring>

#include "../kernels/reduce.h"
#include "image_parts.h"

namespace stairgrad::quant {

Arrays ImageChoiceOp::forward(const Arrays& in) const {
  const int64_t n = in[0].dim(0);
  const Array chosen = kernels::argmax(in[0]);
  Array result(in[1].shape(), in[1].dtype());
  const size_t row_bytes = n ? result.bytes() / static_cast<size_t>(n) : 0;
  for (int64_t i = 0; i < n; ++i) {
    const auto k = static_cast<size_t>(chosen.data<int32_t>()[i]);
    std::memcpy(static_cast<char*>(result.raw()) + static_cast<size_t>(i) * row_bytes,
                static_cast<const char*>(in[1 + k].raw()) + static_cast<size_t>(i) * row_bytes, row_bytes);
  }
  return {result};
}

Tensors ImageChoiceOp::decompose(const Tensors& in) const {
  Tensor total;
  for (size_t k = 1; k < in.size(); ++k) {
    const Tensor part = in[k] * scale_of(in[0], static_cast<int64_t>(k) - 1, in[k].shape(), in[k].dtype());
    total = total.defined() ? total + part : part;
  }
  return {total};
}

Tensors ImageChoiceOp::vjp(const Vjp& v) const {
  return of_parts(v, inputs, [&](int) { return v.grad(); });
}

Tensor image_choice(const Tensor& gates, const Tensors& parts, int column) {
  return of_gates_and_parts(ImageChoiceOp(column), gates, parts);
}

}  // namespace stairgrad::quant
