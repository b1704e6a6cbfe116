#include "resnet.h"

#include "../autograd/ops.h"

namespace stairgrad::nn {

BasicBlock::BasicBlock(int64_t in_channels, int64_t out_channels, int64_t stride, Shortcut kind)
    : stride_(stride), widening_(out_channels - in_channels) {
  conv1_ = add_module("conv1",
                      std::make_shared<Conv2d>(in_channels, out_channels, 3, Conv2dOptions::with(stride, 1)));
  bn1_ = add_module("bn1", std::make_shared<BatchNorm2d>(out_channels));
  conv2_ =
      add_module("conv2", std::make_shared<Conv2d>(out_channels, out_channels, 3, Conv2dOptions::with(1, 1)));
  bn2_ = add_module("bn2", std::make_shared<BatchNorm2d>(out_channels));
  const bool changes = stride != 1 || widening_ != 0;
  if (changes && kind == Shortcut::B) {
    downsample_ = add_module("downsample", std::make_shared<Sequential>());
    downsample_->add(std::make_shared<Conv2d>(in_channels, out_channels, 1, Conv2dOptions::with(stride, 0)));
    downsample_->add(std::make_shared<BatchNorm2d>(out_channels));
    add_tap("skip", skip_);
  }
  add_tap("output", output_);
}

Tensor BasicBlock::shortcut(const Tensor& x) {
  if (downsample_) return skip_((*downsample_)(x)).value;
  Tensor y = x;
  if (stride_ != 1)
    y = slice(y, {{0, x.dim(0), 1}, {0, x.dim(1), stride_}, {0, x.dim(2), stride_}, {0, x.dim(3), 1}});
  if (widening_ != 0) y = pad(y, {0, 0, 0, widening_ / 2}, {0, 0, 0, widening_ - widening_ / 2});
  return y;
}

Tensor BasicBlock::forward(const Tensor& x) {
  const Tensor y = bn1_->relu((*conv1_)(x));
  return output_(bn2_->add_relu((*conv2_)(y), shortcut(x))).value;
}

CifarResNet::CifarResNet(const CifarResNetOptions& o) : Model({o.image_size, o.image_size, o.in_channels}) {
  conv1_ =
      add_module("conv1", std::make_shared<Conv2d>(o.in_channels, o.width, 3, Conv2dOptions::with(1, 1)));
  bn1_ = add_module("bn1", std::make_shared<BatchNorm2d>(o.width));
  add_tap("stem", stem_);
  add_block("stem", [this](const Tensor& x) { return stem_(bn1_->relu((*conv1_)(x))).value; });

  int64_t channels = o.width;
  for (int stage = 0; stage < 3; ++stage) {
    const auto layer = add_module(text("layer", stage + 1), std::make_shared<Sequential>());
    for (int64_t i = 0; i < o.blocks_per_stage; ++i) {
      const int64_t wider = o.width << stage, stride = stage > 0 && i == 0 ? 2 : 1;
      const auto block = std::make_shared<BasicBlock>(channels, wider, stride, o.shortcut);
      layer->add(block);
      layers_.push_back(block);
      channels = wider;
      add_block(text(layer->name(), '.', i), [layer, block](const Tensor& x) {
        const Scope scope(layer->name());
        return (*block)(x);
      });
    }
  }
  pool_ = std::make_shared<GlobalAvgPool>();
  linear_ = add_module("linear", std::make_shared<Linear>(channels, o.classes));
  add_block("head", [this](const Tensor& x) { return (*linear_)((*pool_)(x)); });
}

}  // namespace stairgrad::nn
