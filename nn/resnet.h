// CIFAR-style residual networks (He et al., CVPR'16, section 4.2).
#pragma once

#include "layers.h"
#include "model.h"

namespace stairgrad::nn {

/// How a block's skip reaches a smaller, wider result.
enum class Shortcut {
  A,  ///< every second pixel, zero channels around: no parameters (the CIFAR networks of the paper)
  B   ///< 1x1 convolution with stride 2 and batch norm
};

/// relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))
class BasicBlock : public Layer {
 public:
  BasicBlock(int64_t in_channels, int64_t out_channels, int64_t stride, Shortcut shortcut);
  Tensor forward(const Tensor& x) override;

 private:
  Tensor shortcut(const Tensor& x);

  int64_t stride_, widening_;
  std::shared_ptr<Conv2d> conv1_, conv2_;
  std::shared_ptr<BatchNorm2d> bn1_, bn2_;
  std::shared_ptr<Sequential> downsample_;  // shortcut B only
  Tap output_{Tap::Role::tensor}, skip_{Tap::Role::tensor};
};

struct CifarResNetOptions {
  int64_t blocks_per_stage = 3;  ///< depth 6 n + 2: 1 is ResNet-8, 3 is ResNet-20
  int64_t width = 16;            ///< channels of the first stage; the next two double them
  int64_t in_channels = 3;
  int64_t image_size = 32;  ///< for input_shape() alone; any size runs
  int64_t classes = 10;
  Shortcut shortcut = Shortcut::A;
};

/// conv1, bn1, layer1, layer2, layer3, global average pool, linear. Blocks: "stem", "layer1.0" ..., "head".
class CifarResNet : public Model {
 public:
  explicit CifarResNet(const CifarResNetOptions& options);

 private:
  std::shared_ptr<Conv2d> conv1_;
  std::shared_ptr<BatchNorm2d> bn1_;
  std::vector<std::shared_ptr<BasicBlock>> layers_;
  std::shared_ptr<GlobalAvgPool> pool_;
  std::shared_ptr<Linear> linear_;
  Tap stem_{Tap::Role::tensor};
};

}  // namespace stairgrad::nn
