// MobileNetV2 (Sandler et al., CVPR'18, table 2), as in torchvision; for CIFAR with stride 1 in the stem and
// the second stage.
#include "conv_norm.h"
#include "zoo.h"

namespace stairgrad::nn {
namespace {

struct Stage {
  int64_t expansion, channels, blocks;
  int64_t stride, cifar_stride;  // of the first block
};

const Stage stages[] = {{1, 16, 1, 1, 1}, {6, 24, 2, 2, 1},  {6, 32, 3, 2, 2}, {6, 64, 4, 2, 2},
                        {6, 96, 3, 1, 1}, {6, 160, 3, 2, 2}, {6, 320, 1, 1, 1}};

// 1x1 to more channels, depthwise 3x3, 1x1 to few channels without activation, and a skip where the shape
// stays.
class InvertedResidual : public Layer {
 public:
  InvertedResidual(int64_t in_channels, int64_t out_channels, int64_t stride, int64_t expansion,
                   const ConvStyle& style)
      : residual_(stride == 1 && in_channels == out_channels) {
    const int64_t hidden = in_channels * expansion;
    if (expansion != 1)
      convs_.emplace_back(*this, "conv.0.0", "conv.0.1", ConvShape{in_channels, hidden, 1}, style);
    const std::string depthwise = text("conv.", convs_.size());
    convs_.emplace_back(*this, depthwise + ".0", depthwise + ".1",
                        ConvShape{hidden, hidden, 3, stride, /*groups=*/hidden}, style);
    const size_t last = convs_.size();
    convs_.emplace_back(*this, text("conv.", last), text("conv.", last + 1),
                        ConvShape{hidden, out_channels, 1}, style);
    if (residual_) add_tap("input", input_);
  }

  Tensor forward(const Tensor& src) override {
    const Tensor x = residual_ ? input_(src).value : src;
    Tensor y = x;
    for (size_t i = 0; i + 1 < convs_.size(); ++i) y = convs_[i].relu6(y);
    return residual_ ? convs_.back().add(y, x) : convs_.back()(y);
  }

 private:
  bool residual_;
  std::vector<ConvNorm> convs_;
  Tap input_{Tap::Role::tensor};
};

class MobileNetV2 : public Model {
 public:
  MobileNetV2(Stem stem, const ModelOptions& o) : Model({o.image_size, o.image_size, o.in_channels}) {
    const auto channels_of = [&](int64_t channels) {
      return make_divisible(static_cast<double>(channels) * o.width);
    };
    const bool imagenet = stem == Stem::imagenet;
    int64_t channels = channels_of(32), index = 1;
    const ConvNorm first(*this, "features.0.0", "features.0.1",
                         {o.in_channels, channels, 3, imagenet ? 2 : 1}, o.style);
    add_block("stem", [first](const Tensor& x) { return first.relu6(x); });
    for (const Stage& stage : stages)
      for (int64_t i = 0; i < stage.blocks; ++i, ++index) {
        const int64_t stride = i > 0 ? 1 : imagenet ? stage.stride : stage.cifar_stride;
        add_block(text("features.", index),
                  std::make_shared<InvertedResidual>(channels, channels_of(stage.channels), stride,
                                                     stage.expansion, o.style));
        channels = channels_of(stage.channels);
      }
    const int64_t features = make_divisible(1280 * std::max(1.0, o.width));
    const std::string name = text("features.", index);
    const ConvNorm last(*this, name + ".0", name + ".1", {channels, features, 1}, o.style);
    add_tap("features", features_);
    add_block(name, [this, last](const Tensor& x) { return features_(last.relu6(x)).value; });
    add_head("classifier.1", features, o.classes);
  }

 private:
  Tap features_{Tap::Role::tensor};
};

}  // namespace

std::unique_ptr<Model> mobilenet_v2(Stem stem, const ModelOptions& options) {
  return std::make_unique<MobileNetV2>(stem, options);
}

}  // namespace stairgrad::nn
