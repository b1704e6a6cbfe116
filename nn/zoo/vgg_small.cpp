// VGG-Small, the network of LQ-Nets (Zhang et al., ECCV'18) and of DSQ's CIFAR-10 table: 2 x 128, 2 x 256 and
// 2 x 512 channels with a max pooling behind each pair, and one fully connected layer; parameters have the
// names of github.com/htqin/IR-Net.
#include "../../autograd/ops.h"
#include "conv_norm.h"
#include "zoo.h"

namespace stairgrad::nn {
namespace {

class VggSmall : public Model {
 public:
  explicit VggSmall(const ModelOptions& o) : Model({o.image_size, o.image_size, o.in_channels}) {
    check(o.image_size >= 8, "[vgg_small] got images of ", o.image_size, " pixels, expected 8 or more");
    int64_t channels = o.in_channels;
    for (int i = 0; i < 6; ++i) {
      const int64_t wider = scaled(int64_t{128} << (i / 2), o.width);
      const ConvNorm conv(*this, text("conv", i), text("bn", i), {channels, wider}, o.style);
      add_block(i == 0 ? "stem" : text("conv", i), [conv, pooled = i % 2 == 1](const Tensor& x) {
        const Tensor y = conv.activate(x);
        return pooled ? max_pool2d(y, Pool2dOptions::with(2, 2)) : y;
      });
      channels = wider;
    }
    // A fully connected layer that reads a whole map is a convolution over all of it.
    const int64_t side = o.image_size / 8;
    const auto fc =
        add_module("fc", std::make_shared<Conv2d>(channels, o.classes, side, Conv2dOptions{}, /*bias=*/true));
    add_block("head", [fc, side](const Tensor& x) {
      check(x.dim(1) == side && x.dim(2) == side, "[vgg_small] got images of about ", 8 * x.dim(1), " x ",
            8 * x.dim(2), " pixels, expected ", 8 * side, " x ", 8 * side, " as image_size says");
      const Tensor y = (*fc)(x);
      return reshape(y, {y.dim(0), y.dim(3)});
    });
  }
};

}  // namespace

std::unique_ptr<Model> vgg_small(const ModelOptions& options) { return std::make_unique<VggSmall>(options); }

}  // namespace stairgrad::nn
