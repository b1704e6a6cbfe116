// Residual blocks (He et al., CVPR'16).
#pragma once

#include <optional>
#include <span>

#include "conv_norm.h"

namespace stairgrad::nn {

/// How a block's skip reaches a smaller, wider result.
enum class Shortcut {
  A,  ///< every second pixel, zero channels around: no parameters (the CIFAR networks of the paper)
  B   ///< 1x1 convolution with the block's stride, and batch norm
};

/// What a block adds to its result: its input, or what the shortcut makes of it. Shortcut B has the children
/// `name`.0 and `name`.1.
class Skip {
 public:
  Skip(Module& owner, int64_t in_channels, int64_t out_channels, int64_t stride, Shortcut shortcut,
       const ConvStyle& style, const std::string& name = "downsample");
  Tensor operator()(const Tensor& x) const;

 private:
  int64_t stride_, widening_;
  std::optional<ConvNorm> projection_;  // shortcut B where the shape changes
  Tap tap_{Tap::Role::tensor};
};

/// relu(bn2(conv2(relu(bn1(conv1(x))))) + skip(x)), two 3x3 convolutions.
class BasicBlock : public Layer {
 public:
  BasicBlock(int64_t in_channels, int64_t out_channels, int64_t stride, Shortcut shortcut,
             const ConvStyle& style = {});
  Tensor forward(const Tensor& x) override;

 private:
  ConvNorm conv1_, conv2_;
  Skip skip_;
  Tap output_{Tap::Role::tensor};
};

/// 1x1 to a quarter of the channels, 3x3 with the stride (as torchvision, not as the paper, which has it in
/// the first), 1x1 to out_channels, and shortcut B.
class Bottleneck : public Layer {
 public:
  Bottleneck(int64_t in_channels, int64_t out_channels, int64_t stride, const ConvStyle& style = {});
  Tensor forward(const Tensor& x) override;

 private:
  ConvNorm conv1_, conv2_, conv3_;
  Skip skip_;
  Tap output_{Tap::Role::tensor};
};

/// A stem of conv1 and bn1, then stages of blocks, each half as long and wide as the one before, with twice
/// the channels: what the networks for CIFAR and those for ImageNet have in common.
class ResidualNetwork : public Model {
 protected:
  /// `pool`: the stem ends with 3x3 max pooling of stride 2.
  ResidualNetwork(const ConvShape& conv1, bool pool, const ModelOptions& options);

  using MakeBlock =
      std::function<std::shared_ptr<Layer>(int64_t in_channels, int64_t out_channels, int64_t stride)>;
  /// layer1.0, layer1.1, ..., layer2.0, ...: so many blocks in each stage, which read the `in_channels` of
  /// the stem; those of the first stage have `out_channels`. Returns the channels of the last.
  int64_t add_stages(std::span<const int64_t> blocks, int64_t in_channels, int64_t out_channels,
                     const MakeBlock& make);

 private:
  ConvNorm conv1_;
  Tap stem_{Tap::Role::tensor};
};

}  // namespace stairgrad::nn
