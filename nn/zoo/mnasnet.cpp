// MNASNet-B1 (Tan et al., CVPR'19, figure 7 without squeeze and excitation), as in torchvision.
#include "conv_norm.h"
#include "zoo.h"

namespace stairgrad::nn {
namespace {

struct Stage {
  int64_t channels, kernel, stride, expansion, blocks;
};

const Stage stages[] = {{24, 3, 2, 3, 3}, {40, 5, 2, 3, 3},  {80, 5, 2, 6, 3},
                        {96, 3, 1, 6, 2}, {192, 5, 2, 6, 4}, {320, 3, 1, 6, 1}};

// 1x1 to more channels, depthwise, 1x1 to few channels without activation, and a skip where the shape stays.
class InvertedResidual : public Layer {
 public:
  InvertedResidual(int64_t in_channels, int64_t hidden, int64_t out_channels, int64_t kernel, int64_t stride,
                   const ConvStyle& style)
      : residual_(stride == 1 && in_channels == out_channels),
        expand_(*this, "layers.0", "layers.1", {in_channels, hidden, 1}, style),
        depthwise_(*this, "layers.3", "layers.4", {hidden, hidden, kernel, stride, /*groups=*/hidden}, style),
        project_(*this, "layers.6", "layers.7", {hidden, out_channels, 1}, style) {
    if (residual_) add_tap("input", input_);
  }

  Tensor forward(const Tensor& src) override {
    const Tensor x = residual_ ? input_(src).value : src;
    const Tensor y = depthwise_.activate(expand_.activate(x));
    return residual_ ? project_.add(y, x) : project_(y);
  }

 private:
  bool residual_;
  ConvNorm expand_, depthwise_, project_;
  Tap input_{Tap::Role::tensor};
};

class MnasNet : public Model {
 public:
  MnasNet(double alpha, const ModelOptions& o) : Model({o.image_size, o.image_size, o.in_channels}) {
    const auto channels_of = [&](int64_t channels) {
      return make_divisible(static_cast<double>(channels) * alpha * o.width);
    };
    int64_t channels = channels_of(32);
    const ConvNorm first(*this, "layers.0", "layers.1", {o.in_channels, channels, 3, 2}, o.style),
        depthwise(*this, "layers.3", "layers.4", {channels, channels, 3, 1, /*groups=*/channels}, o.style),
        pointwise(*this, "layers.6", "layers.7", {channels, channels_of(16), 1}, o.style);
    add_block("stem", [=](const Tensor& x) { return pointwise(depthwise.activate(first.activate(x))); });
    channels = channels_of(16);
    int64_t index = 8;
    for (const Stage& stage : stages) {
      for (int64_t i = 0; i < stage.blocks; ++i) {
        add_block(text("layers.", index, '.', i),
                  std::make_shared<InvertedResidual>(channels, channels * stage.expansion,
                                                     channels_of(stage.channels), stage.kernel,
                                                     i == 0 ? stage.stride : 1, o.style));
        channels = channels_of(stage.channels);
      }
      ++index;
    }
    const ConvNorm last(*this, "layers.14", "layers.15", {channels, 1280, 1}, o.style);
    add_tap("features", features_);
    add_block("layers.14", [this, last](const Tensor& x) { return features_(last.activate(x)).value; });
    add_head("classifier.1", 1280, o.classes);
  }

 private:
  Tap features_{Tap::Role::tensor};
};

}  // namespace

std::unique_ptr<Model> mnasnet(double alpha, const ModelOptions& options) {
  return std::make_unique<MnasNet>(alpha, options);
}

}  // namespace stairgrad::nn
