// The CIFAR networks of He et al., CVPR'16, section 4.2: three stages of 16, 32 and 64 channels.
#include "residual.h"
#include "zoo.h"

namespace stairgrad::nn {
namespace {

class CifarResNet : public ResidualNetwork {
 public:
  CifarResNet(int64_t blocks_per_stage, Shortcut shortcut, const ModelOptions& o)
      : ResidualNetwork({o.in_channels, scaled(16, o.width)}, /*pool=*/false, o) {
    const std::array<int64_t, 3> blocks = {blocks_per_stage, blocks_per_stage, blocks_per_stage};
    const int64_t channels = scaled(16, o.width);
    const auto block = [&](int64_t in, int64_t out, int64_t stride) {
      return std::make_shared<BasicBlock>(in, out, stride, shortcut, o.style);
    };
    add_head("linear", add_stages(blocks, channels, channels, block), o.classes);
  }
};

}  // namespace

std::unique_ptr<Model> cifar_resnet(int64_t depth, Shortcut shortcut, const ModelOptions& options) {
  check(depth >= 8 && depth % 6 == 2, "[cifar_resnet] got the depth ", depth, ", expected 6 n + 2, n >= 1");
  return std::make_unique<CifarResNet>((depth - 2) / 6, shortcut, options);
}

}  // namespace stairgrad::nn
