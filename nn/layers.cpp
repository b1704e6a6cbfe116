#include "layers.h"

#include <cmath>

#include "../autograd/checkpoint.h"
#include "../autograd/ops.h"

namespace stairgrad::nn {
namespace {

const Tensor no_bias;

// Fills a parameter from the random stream of its full name.
void draw_normal(const Tensor& parameter, uint64_t seed, const std::string& name, double deviation) {
  Array target = parameter.value();
  target.assign(random_normal(target.shape(), Philox(seed, stream_of(name)), deviation, target.dtype()));
}

void fill(const Tensor& parameter, double value) {
  Array target = parameter.value();
  target.assign(Array::full(target.shape(), value, target.dtype()));
}

// running = (1 - momentum) * running + momentum * batch * correction
void move_average(Array& running, const Array& batch, double momentum, double correction) {
  dispatch_floating(running.dtype(), [&](auto zero) {
    using T = decltype(zero);
    T* to = running.data<T>();
    const T* from = batch.data<T>();
    for (int64_t i = 0; i < running.size(); ++i)
      to[i] = static_cast<T>((1 - momentum) * to[i] + momentum * correction * from[i]);
  });
  running.bump_version();
}

}  // namespace

Conv2d::Conv2d(int64_t in_channels, int64_t out_channels, int64_t kernel, const Conv2dOptions& options,
               bool with_bias)
    : options(options),
      weight(add_parameter("weight", {out_channels, kernel, kernel, in_channels / options.groups})),
      bias(with_bias ? add_parameter("bias", {out_channels}) : no_bias) {
  add_tap("weight", weight_tap);
  add_tap("input", input_tap);
}

void Conv2d::reset(uint64_t seed, const std::string& path) {
  const double fan_in = static_cast<double>(weight.size()) / static_cast<double>(weight.dim(0));
  draw_normal(weight, seed, path + ".weight", std::sqrt(2 / fan_in));
  if (bias.defined()) fill(bias, 0);
}

Tensor Conv2d::forward(const Tensor& x) {
  const Quantized src = input_tap(x), weights = weight_tap(weight);
  const Tensor y = arithmetic == Arithmetic::integers ? conv2d(src, weights, options)
                                                      : conv2d(src.value, weights.value, options);
  return bias.defined() ? y + cast(bias, y.dtype()) : y;
}

Linear::Linear(int64_t in_features, int64_t out_features, bool with_bias)
    : weight(add_parameter("weight", {out_features, in_features})),
      bias(with_bias ? add_parameter("bias", {out_features}) : no_bias) {
  add_tap("weight", weight_tap);
  add_tap("input", input_tap);
}

void Linear::reset(uint64_t seed, const std::string& path) {
  draw_normal(weight, seed, path + ".weight", std::sqrt(1 / static_cast<double>(weight.dim(1))));
  if (bias.defined()) fill(bias, 0);
}

Tensor Linear::forward(const Tensor& x) {
  const Quantized src = input_tap(x), weights = weight_tap(weight);
  if (arithmetic == Arithmetic::values) return linear(src.value, weights.value, bias);
  // A fully connected layer is a 1x1 convolution of 1x1 images.
  const auto as_image = [](const Quantized& q) {
    return Quantized{reshape(q.value, {q.value.dim(0), 1, 1, q.value.dim(1)}), q.grids, q.codes};
  };
  const Tensor y = reshape(conv2d(as_image(src), as_image(weights)), {x.dim(0), weight.dim(0)});
  return bias.defined() ? y + cast(bias, y.dtype()) : y;
}

BatchNorm2d::BatchNorm2d(int64_t channels, double eps, double momentum)
    : eps(eps),
      momentum(momentum),
      weight(add_parameter("weight", {channels})),
      bias(add_parameter("bias", {channels})),
      running_mean(add_buffer("running_mean", {channels})),
      running_var(add_buffer("running_var", {channels}, 1)) {}

void BatchNorm2d::reset(uint64_t, const std::string&) {
  fill(weight, 1);
  fill(bias, 0);
  running_mean.assign(Array::zeros(running_mean.shape(), running_mean.dtype()));
  running_var.assign(Array::full(running_var.shape(), 1, running_var.dtype()));
}

Tensor BatchNorm2d::forward(const Tensor& x) { return normalise(x, {}, {.eps = eps}); }

Tensor BatchNorm2d::relu(const Tensor& x) {
  const Scope scope(name());
  return normalise(x, {}, {.eps = eps, .relu = true});
}

Tensor BatchNorm2d::relu6(const Tensor& x) {
  const Scope scope(name());
  return normalise(x, {}, {.eps = eps, .relu = true, .high = 6});
}

Tensor BatchNorm2d::add(const Tensor& x, const Tensor& skip) {
  const Scope scope(name());
  return normalise(x, skip, {.eps = eps});
}

Tensor BatchNorm2d::add_relu(const Tensor& x, const Tensor& skip) {
  const Scope scope(name());
  return normalise(x, skip, {.eps = eps, .relu = true});
}

Tensor BatchNorm2d::normalise(const Tensor& x, const Tensor& skip, const BatchNormOptions& batch_norm) {
  if (watch) watch(x);
  if (instead) return instead(x, skip, batch_norm);
  if (!training()) return batch_norm_eval(x, weight, bias, running_mean, running_var, batch_norm, skip);
  const BatchNormResult result = batch_norm_train(x, weight, bias, batch_norm, skip);
  if (recomputing()) return result.y;
  const double count = static_cast<double>(x.size()) / static_cast<double>(weight.size());
  move_average(running_mean, result.mean.value(), momentum, 1);
  move_average(running_var, result.var.value(), momentum, count / std::max(1.0, count - 1));
  return result.y;
}

Tensor ReLU::forward(const Tensor& x) { return relu(x); }
Tensor MaxPool2d::forward(const Tensor& x) { return max_pool2d(x, options); }
Tensor AvgPool2d::forward(const Tensor& x) { return avg_pool2d(x, options); }
Tensor GlobalAvgPool::forward(const Tensor& x) { return reshape(global_avg_pool(x), {x.dim(0), x.dim(3)}); }

Sequential::Sequential(const std::vector<std::shared_ptr<Layer>>& layers) {
  for (const auto& layer : layers) add(layer);
}

void Sequential::add(std::shared_ptr<Layer> layer) {
  add_module(text(layers_.size()), layer);
  layers_.push_back(std::move(layer));
}

Tensor Sequential::forward(const Tensor& x) {
  Tensor y = x;
  for (const auto& layer : layers_) y = (*layer)(y);
  return y;
}

}  // namespace stairgrad::nn
