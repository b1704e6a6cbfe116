// RegNetX (Radosavovic et al., CVPR'20, figure 17), as in torchvision.
#include "../../autograd/ops.h"
#include "conv_norm.h"
#include "residual.h"
#include "zoo.h"

namespace stairgrad::nn {
namespace {

struct Plan {
  int64_t megaflops;
  std::array<int64_t, 4> blocks, channels;
  int64_t group_width;
};

const Plan plans[] = {{600, {1, 3, 5, 7}, {48, 96, 240, 528}, 24},
                      {3200, {2, 6, 15, 2}, {96, 192, 432, 1008}, 48}};

// 1x1, grouped 3x3 with the stride, 1x1, all of the same width; the skip is projected where the shape
// changes.
class XBlock : public Layer {
 public:
  XBlock(int64_t in_channels, int64_t out_channels, int64_t stride, int64_t group_width,
         const ConvStyle& style)
      : skip_(*this, in_channels, out_channels, stride, Shortcut::B, style, "proj"),
        a_(*this, "f.a.0", "f.a.1", {in_channels, out_channels, 1}, style),
        b_(*this, "f.b.0", "f.b.1", {out_channels, out_channels, 3, stride, out_channels / group_width},
           style),
        c_(*this, "f.c.0", "f.c.1", {out_channels, out_channels, 1}, style) {
    add_tap("output", output_);
  }

  Tensor forward(const Tensor& x) override {
    const Tensor y = b_.activate(a_.activate(x));
    return output_(c_.add_activate(y, skip_(x))).value;
  }

 private:
  Skip skip_;
  ConvNorm a_, b_, c_;
  Tap output_{Tap::Role::tensor};
};

class RegNet : public Model {
 public:
  RegNet(const Plan& plan, const ModelOptions& o)
      : Model({o.image_size, o.image_size, o.in_channels}),
        stem_conv_(*this, "stem.0", "stem.1", {o.in_channels, scaled(32, o.width), 3, 2}, o.style) {
    add_tap("stem", stem_);
    add_block("stem", [this](const Tensor& x) { return stem_(stem_conv_.activate(x)).value; });
    int64_t channels = scaled(32, o.width);
    for (size_t stage = 0; stage < 4; ++stage) {
      const int64_t wider =
          make_divisible(static_cast<double>(plan.channels[stage]) * o.width, plan.group_width);
      for (int64_t i = 0; i < plan.blocks[stage]; ++i) {
        add_block(text("trunk_output.block", stage + 1, ".block", stage + 1, '-', i),
                  std::make_shared<XBlock>(channels, wider, i == 0 ? 2 : 1, plan.group_width, o.style));
        channels = wider;
      }
    }
    add_head("fc", channels, o.classes);
  }

 private:
  ConvNorm stem_conv_;
  Tap stem_{Tap::Role::tensor};
};

}  // namespace

std::unique_ptr<Model> regnet_x(int64_t megaflops, const ModelOptions& options) {
  for (const Plan& plan : plans)
    if (plan.megaflops == megaflops) return std::make_unique<RegNet>(plan, options);
  throw argument_error(text("[regnet_x] got ", megaflops, " MFLOPs, expected 600 or 3200"));
}

}  // namespace stairgrad::nn
