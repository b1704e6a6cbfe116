// A convolution with the batch norm behind it: what the networks of the zoo are made of.
#pragma once

#include "../layers.h"
#include "../model.h"

namespace stairgrad::nn {

/// A square kernel whose result has 1 / stride of the extent.
struct ConvShape {
  int64_t in_channels, out_channels;
  int64_t kernel = 3, stride = 1, groups = 1;
};

/// Two children of `owner`, called `conv` and `norm`. Folded, the batch norm is part of the convolution,
/// which then has a bias, and the owner has one child.
class ConvNorm {
 public:
  ConvNorm(Module& owner, const std::string& conv, const std::string& norm, const ConvShape& shape,
           const ConvStyle& style);

  Tensor operator()(const Tensor& x) const;
  /// Followed by the activation of the style.
  Tensor activate(const Tensor& x) const;
  Tensor relu6(const Tensor& x) const;
  Tensor add(const Tensor& x, const Tensor& skip) const;
  Tensor add_activate(const Tensor& x, const Tensor& skip) const;

 private:
  std::shared_ptr<Conv2d> conv_;
  std::shared_ptr<BatchNorm2d> norm_;  // null if folded
  Activation activation_;
};

/// `channels` times `width`, at least 1.
int64_t scaled(int64_t channels, double width);
/// The multiple of `divisor` nearest to `value`, but never below 0.9 of it: how the MobileNets round (Sandler
/// et al., CVPR'18, and torchvision's _make_divisible).
int64_t make_divisible(double value, int64_t divisor = 8);

}  // namespace stairgrad::nn
