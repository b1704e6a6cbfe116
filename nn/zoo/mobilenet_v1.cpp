// MobileNetV1 (Howard et al., 2017, table 1) with ReLU6, as in Keras; parameters have the names of
// github.com/marvis/pytorch-mobilenet.
#include "conv_norm.h"
#include "zoo.h"

namespace stairgrad::nn {
namespace {

struct Step {
  int64_t channels, stride;
};

const Step steps[] = {{64, 1},  {128, 2}, {128, 1}, {256, 2}, {256, 1},  {512, 2}, {512, 1},
                      {512, 1}, {512, 1}, {512, 1}, {512, 1}, {1024, 2}, {1024, 1}};

// Depthwise 3x3, then 1x1.
class SeparableConv : public Layer {
 public:
  SeparableConv(int64_t in_channels, int64_t out_channels, int64_t stride, const ConvStyle& style)
      : depthwise_(*this, "0", "1", {in_channels, in_channels, 3, stride, /*groups=*/in_channels}, style),
        pointwise_(*this, "3", "4", {in_channels, out_channels, 1}, style) {}

  Tensor forward(const Tensor& x) override { return pointwise_.relu6(depthwise_.relu6(x)); }

 private:
  ConvNorm depthwise_, pointwise_;
};

class MobileNetV1 : public Model {
 public:
  explicit MobileNetV1(const ModelOptions& o) : Model({o.image_size, o.image_size, o.in_channels}) {
    const auto channels_of = [&](int64_t channels) {
      return make_divisible(static_cast<double>(channels) * o.width);
    };
    int64_t channels = channels_of(32), index = 1;
    const ConvNorm first(*this, "model.0.0", "model.0.1", {o.in_channels, channels, 3, 2}, o.style);
    add_block("stem", [first](const Tensor& x) { return first.relu6(x); });
    for (const Step& step : steps) {
      add_block(text("model.", index++),
                std::make_shared<SeparableConv>(channels, channels_of(step.channels), step.stride, o.style));
      channels = channels_of(step.channels);
    }
    add_tap("features", features_);
    add_block("features", [this](const Tensor& x) { return features_(x).value; });
    add_head("fc", channels, o.classes);
  }

 private:
  Tap features_{Tap::Role::tensor};
};

}  // namespace

std::unique_ptr<Model> mobilenet_v1(const ModelOptions& options) {
  return std::make_unique<MobileNetV1>(options);
}

}  // namespace stairgrad::nn
