#include "conv_norm.h"

#include <algorithm>
#include <cmath>

#include "../../autograd/ops.h"

namespace stairgrad::nn {
namespace {

Conv2dOptions options_of(const ConvShape& shape, const ConvStyle& style) {
  Conv2dOptions options = Conv2dOptions::with(shape.stride, shape.kernel / 2, shape.groups);
  if (style.same_padding) {
    const int64_t both = std::max<int64_t>(0, shape.kernel - shape.stride), before = both / 2;
    options.padding = {before, both - before, before, both - before};
  }
  return options;
}

}  // namespace

ConvNorm::ConvNorm(Module& owner, const std::string& conv, const std::string& norm, const ConvShape& shape,
                   const ConvStyle& style)
    : conv_(
          owner.add_module(conv, std::make_shared<Conv2d>(shape.in_channels, shape.out_channels, shape.kernel,
                                                          options_of(shape, style), style.folded))),
      activation_(style.activation) {
  if (!style.folded)
    norm_ = owner.add_module(norm, std::make_shared<BatchNorm2d>(shape.out_channels, style.eps));
}

Tensor ConvNorm::operator()(const Tensor& x) const {
  const Tensor y = (*conv_)(x);
  return norm_ ? (*norm_)(y) : y;
}

Tensor ConvNorm::activate(const Tensor& x) const {
  if (activation_ == Activation::hardtanh) return hardtanh((*this)(x));
  const Tensor y = (*conv_)(x);
  return norm_ ? norm_->relu(y) : stairgrad::relu(y);
}

Tensor ConvNorm::relu6(const Tensor& x) const {
  const Tensor y = (*conv_)(x);
  return norm_ ? norm_->relu6(y) : stairgrad::relu6(y);
}

Tensor ConvNorm::add(const Tensor& x, const Tensor& skip) const {
  const Tensor y = (*conv_)(x);
  return norm_ ? norm_->add(y, skip) : y + skip;
}

Tensor ConvNorm::add_activate(const Tensor& x, const Tensor& skip) const {
  if (activation_ == Activation::hardtanh) return hardtanh(add(x, skip));
  const Tensor y = (*conv_)(x);
  return norm_ ? norm_->add_relu(y, skip) : stairgrad::relu(y + skip);
}

int64_t scaled(int64_t channels, double width) {
  return std::max<int64_t>(1, std::llround(static_cast<double>(channels) * width));
}

int64_t make_divisible(double value, int64_t divisor) {
  const auto d = static_cast<double>(divisor);
  const int64_t nearest = std::max(divisor, static_cast<int64_t>((value + d / 2) / d) * divisor);
  return static_cast<double>(nearest) < 0.9 * value ? nearest + divisor : nearest;
}

}  // namespace stairgrad::nn
