// What a bit selector sees of a map.
#pragma once

#include "../autograd/op.h"

namespace stairgrad::quant {

/// Mean of each channel, then its deviation, of every image: (n, h, w, c) -> (n, 2c), f32, computed in f64. A
/// constant: what a selector reads does not change because it is read.
struct ChannelMomentsOp final : Op {
  std::string_view name() const override { return "channel_moments"; }
  Arrays forward(const Arrays& in) const override;
  bool differentiable(int) const override { return false; }
  bool mixed_types() const override { return true; }
};
Tensor channel_moments(const Tensor& x);

}  // namespace stairgrad::quant
