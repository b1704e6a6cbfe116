// ResNet-18, -34 and -50 (He et al., CVPR'16, table 1), as in torchvision, with the stem for ImageNet or one
// for CIFAR.
#include "../../autograd/ops.h"
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

class ResNet : public Model {
 public:
  ResNet(const Plan& plan, Stem stem, const ModelOptions& o)
      : Model({o.image_size, o.image_size, o.in_channels}),
        conv1_(*this, "conv1", "bn1",
               stem == Stem::imagenet ? ConvShape{o.in_channels, scaled(64, o.width), 7, 2}
                                      : ConvShape{o.in_channels, scaled(64, o.width)},
               o.style) {
    add_tap("stem", stem_);
    add_block("stem", [this, stem](const Tensor& x) {
      const Tensor y = conv1_.activate(x);
      return stem_(stem == Stem::imagenet ? max_pool2d(y, Pool2dOptions::with(3, 2, 1)) : y).value;
    });
    int64_t channels = scaled(64, o.width);
    for (int stage = 0; stage < 4; ++stage)
      for (int64_t i = 0; i < plan.blocks[static_cast<size_t>(stage)]; ++i) {
        const int64_t wider = (scaled(64, o.width) << stage) * (plan.bottleneck ? 4 : 1);
        const int64_t stride = stage > 0 && i == 0 ? 2 : 1;
        std::shared_ptr<Layer> block;
        if (plan.bottleneck)
          block = std::make_shared<Bottleneck>(channels, wider, stride, o.style);
        else
          block = std::make_shared<BasicBlock>(channels, wider, stride, Shortcut::B, o.style);
        add_block(text("layer", stage + 1, '.', i), block);
        channels = wider;
      }
    add_head("fc", channels, o.classes);
  }

 private:
  ConvNorm conv1_;
  Tap stem_{Tap::Role::tensor};
};

}  // namespace

std::unique_ptr<Model> resnet(int64_t depth, Stem stem, const ModelOptions& options) {
  for (const Plan& plan : plans)
    if (plan.depth == depth) return std::make_unique<ResNet>(plan, stem, options);
  throw argument_error(text("[resnet] got the depth ", depth, ", expected 18, 34 or 50"));
}

}  // namespace stairgrad::nn
