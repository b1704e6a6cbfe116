#include "channel_moments.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace stairgrad::quant {

Arrays ChannelMomentsOp::forward(const Arrays& in) const {
  const Array x = in[0].dtype() == DType::f32 ? in[0] : cast(in[0], DType::f32);
  const int64_t n = x.dim(0), channels = x.dim(3), pixels = x.dim(1) * x.dim(2);
  Array result({n, 2 * channels});
  std::vector<double> sum(static_cast<size_t>(channels)), squares(static_cast<size_t>(channels));
  for (int64_t i = 0; i < n; ++i) {
    std::ranges::fill(sum, 0.0);
    std::ranges::fill(squares, 0.0);
    const float* from = x.data<float>() + i * pixels * channels;
    for (int64_t p = 0; p < pixels; ++p)
      for (int64_t c = 0; c < channels; ++c) {
        const double value = *from++;
        sum[static_cast<size_t>(c)] += value;
        squares[static_cast<size_t>(c)] += value * value;
      }
    float* to = result.data<float>() + i * 2 * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const double mean = sum[static_cast<size_t>(c)] / static_cast<double>(pixels);
      const double var = squares[static_cast<size_t>(c)] / static_cast<double>(pixels) - mean * mean;
      to[c] = static_cast<float>(mean);
      to[channels + c] = static_cast<float>(std::sqrt(std::max(0.0, var)));
    }
  }
  return {result};
}

Tensor channel_moments(const Tensor& x) {
  check(x.rank() == 4 && x.size() > 0, "[channel_moments] got ", x.shape(), ", expected images (n, h, w, c)");
  return apply_op(ChannelMomentsOp{}, {x});
}

}  // namespace stairgrad::quant
