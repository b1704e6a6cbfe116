// ResNet-18, -34 and -50 (He et al., CVPR'16, table 1), as in torchvision, with the stem for ImageNet or one
// for CIFAR.
#include "residual.h"
#include "zoo.h"

namespace stairgrad::nn {
namespace {

struct Plan {
  int64_t depth;
  std::array<int64_t, 4> blocks;
  bool bottleneck;
};

const Plan plans[] = {{18, {2, 2, 2, 2}, false}, {34, {3, 4, 6, 3}, false}, {50, {3, 4, 6, 3}, true}};

class ResNet : public ResidualNetwork {
 public:
  ResNet(const Plan& plan, Stem stem, const ModelOptions& o)
      : ResidualNetwork(stem == Stem::imagenet ? ConvShape{o.in_channels, scaled(64, o.width), 7, 2}
                                               : ConvShape{o.in_channels, scaled(64, o.width)},
                        /*pool=*/stem == Stem::imagenet, o) {
    const int64_t channels = scaled(64, o.width);
    const auto block = [&](int64_t in, int64_t out, int64_t stride) -> std::shared_ptr<Layer> {
      if (plan.bottleneck) return std::make_shared<Bottleneck>(in, out, stride, o.style);
      return std::make_shared<BasicBlock>(in, out, stride, Shortcut::B, o.style);
    };
    add_head("fc", add_stages(plan.blocks, channels, plan.bottleneck ? 4 * channels : channels, block),
             o.classes);
  }
};

}  // namespace

std::unique_ptr<Model> resnet(int64_t depth, Stem stem, const ModelOptions& options) {
  for (const Plan& plan : plans)
    if (plan.depth == depth) return std::make_unique<ResNet>(plan, stem, options);
  throw argument_error(text("[resnet] got the depth ", depth, ", expected 18, 34 or 50"));
}

}  // namespace stairgrad::nn
