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

ResidualNetwork::ResidualNetwork(const ConvShape& conv1, bool pool, const ModelOptions& o)
    : Model({o.image_size, o.image_size, o.in_channels}), conv1_(*this, "conv1", "bn1", conv1, o.style) {
  add_tap("stem", stem_);
  add_block("stem", [this, pool](const Tensor& x) {
    const Tensor y = conv1_.activate(x);
    return stem_(pool ? max_pool2d(y, Pool2dOptions::with(3, 2, 1)) : y).value;
  });
}

int64_t ResidualNetwork::add_stages(std::span<const int64_t> blocks, int64_t in_channels,
                                    int64_t out_channels, const MakeBlock& make) {
  for (size_t stage = 0; stage < blocks.size(); ++stage) {
    if (stage > 0) out_channels *= 2;
    for (int64_t i = 0; i < blocks[stage]; ++i) {
      const int64_t stride = stage > 0 && i == 0 ? 2 : 1;
      add_block(text("layer", stage + 1, '.', i), make(in_channels, out_channels, stride));
      in_channels = out_channels;
    }
  }
  return out_channels;
}

}  // namespace stairgrad::nn
