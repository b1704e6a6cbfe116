#include "residual.h"

#include "../../autograd/ops.h"

namespace stairgrad::nn {

Skip::Skip(Module& owner, int64_t in_channels, int64_t out_channels, int64_t stride, Shortcut shortcut,
           const ConvStyle& style, const std::string& name)
    : stride_(stride), widening_(out_channels - in_channels) {
  if (shortcut == Shortcut::A || (stride == 1 && widening_ == 0)) return;
  projection_.emplace(owner, name + ".0", name + ".1", ConvShape{in_channels, out_channels, 1, stride},
                      style);
  owner.add_tap("skip", tap_);
}

Tensor Skip::operator()(const Tensor& x) const {
  if (projection_) return tap_((*projection_)(x)).value;
  Tensor y = x;
  if (stride_ != 1)
    y = slice(y, {{0, x.dim(0), 1}, {0, x.dim(1), stride_}, {0, x.dim(2), stride_}, {0, x.dim(3), 1}});
  if (widening_ != 0) y = pad(y, {0, 0, 0, widening_ / 2}, {0, 0, 0, widening_ - widening_ / 2});
  return y;
}

BasicBlock::BasicBlock(int64_t in_channels, int64_t out_channels, int64_t stride, Shortcut shortcut,
                       const ConvStyle& style)
    : conv1_(*this, "conv1", "bn1", {in_channels, out_channels, 3, stride}, style),
      conv2_(*this, "conv2", "bn2", {out_channels, out_channels}, style),
      skip_(*this, in_channels, out_channels, stride, shortcut, style) {
  add_tap("output", output_);
}

Tensor BasicBlock::forward(const Tensor& x) {
  const Tensor y = conv1_.activate(x);
  return output_(conv2_.add_activate(y, skip_(x))).value;
}

Bottleneck::Bottleneck(int64_t in_channels, int64_t out_channels, int64_t stride, const ConvStyle& style)
    : conv1_(*this, "conv1", "bn1", {in_channels, out_channels / 4, 1}, style),
      conv2_(*this, "conv2", "bn2", {out_channels / 4, out_channels / 4, 3, stride}, style),
      conv3_(*this, "conv3", "bn3", {out_channels / 4, out_channels, 1}, style),
      skip_(*this, in_channels, out_channels, stride, Shortcut::B, style) {
  add_tap("output", output_);
}

Tensor Bottleneck::forward(const Tensor& x) {
  const Tensor y = conv2_.activate(conv1_.activate(x));
  return output_(conv3_.add_activate(y, skip_(x))).value;
}

}  // namespace stairgrad::nn
