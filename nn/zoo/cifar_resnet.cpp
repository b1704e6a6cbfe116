// The CIFAR networks of He et al., CVPR'16, section 4.2: three stages of 16, 32 and 64 channels.
#include "residual.h"
#include "zoo.h"

namespace stairgrad::nn {
namespace {

class CifarResNet : public Model {
 public:
  CifarResNet(int64_t blocks_per_stage, Shortcut shortcut, const ModelOptions& o)
      : Model({o.image_size, o.image_size, o.in_channels}),
        conv1_(*this, "conv1", "bn1", {o.in_channels, scaled(16, o.width)}, o.style) {
    add_tap("stem", stem_);
    add_block("stem", [this](const Tensor& x) { return stem_(conv1_.activate(x)).value; });
    int64_t channels = scaled(16, o.width);
    for (int stage = 0; stage < 3; ++stage)
      for (int64_t i = 0; i < blocks_per_stage; ++i) {
        const int64_t wider = scaled(16, o.width) << stage, stride = stage > 0 && i == 0 ? 2 : 1;
        add_block(text("layer", stage + 1, '.', i),
                  std::make_shared<BasicBlock>(channels, wider, stride, shortcut, o.style));
        channels = wider;
      }
    add_head("linear", channels, o.classes);
  }

 private:
  ConvNorm conv1_;
  Tap stem_{Tap::Role::tensor};
};

}  // namespace

std::unique_ptr<Model> cifar_resnet(int64_t depth, Shortcut shortcut, const ModelOptions& options) {
  check(depth >= 8 && depth % 6 == 2, "[cifar_resnet] got the depth ", depth, ", expected 6 n + 2, n >= 1");
  return std::make_unique<CifarResNet>((depth - 2) / 6, shortcut, options);
}

}  // namespace stairgrad::nn
