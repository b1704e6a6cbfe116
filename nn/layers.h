// Layers with parameters, and the pooling and activation layers that go between them.
#pragma once

#include "../autograd/ops/batch_norm.h"
#include "../kernels/pool.h"
#include "module.h"

namespace stairgrad::nn {

/// What a quantized layer multiplies.
enum class Arithmetic {
  values,   ///< dequantised values, as floats
  integers  ///< codes, with exact sums: what the integer runtime computes
};

/// Convolution, weights (oc, kh, kw, ic / groups). Initial weights: normal with variance 2 / fan_in (He et
/// al., ICCV'15, eq. 10).
class Conv2d : public Layer {
 public:
  Conv2d(int64_t in_channels, int64_t out_channels, int64_t kernel, const Conv2dOptions& options = {},
         bool bias = false);
  void reset(uint64_t seed, const std::string& path) override;
  Tensor forward(const Tensor& x) override;

  const Conv2dOptions options;
  const Tensor &weight, &bias;  ///< bias is undefined without one
  Tap weight_tap{Tap::Role::weight}, input_tap{Tap::Role::input};
  Arithmetic arithmetic = Arithmetic::values;
};

/// y = x weight^T + bias: (n, in) -> (n, out), weight (out, in). Initial weights: normal with variance 1 /
/// in.
class Linear : public Layer {
 public:
  Linear(int64_t in_features, int64_t out_features, bool bias = true);
  void reset(uint64_t seed, const std::string& path) override;
  Tensor forward(const Tensor& x) override;

  const Tensor &weight, &bias;  ///< bias is undefined without one
  Tap weight_tap{Tap::Role::weight}, input_tap{Tap::Role::input};
  Arithmetic arithmetic = Arithmetic::values;
};

/// Batch normalisation over (n, h, w) (Ioffe and Szegedy, ICML'15). In training it uses the batch's
/// statistics and moves the running ones by `momentum` (unbiased variance, as in PyTorch); in evaluation it
/// changes nothing.
class BatchNorm2d : public Layer {
 public:
  explicit BatchNorm2d(int64_t channels, double eps = 1e-5, double momentum = 0.1);
  void reset(uint64_t seed, const std::string& path) override;
  Tensor forward(const Tensor& x) override;
  /// relu(bn(x)), in one pass.
  Tensor relu(const Tensor& x);
  /// relu6(bn(x)), in one pass.
  Tensor relu6(const Tensor& x);
  /// bn(x) + skip, in one pass.
  Tensor add(const Tensor& x, const Tensor& skip);
  /// relu(bn(x) + skip), in one pass.
  Tensor add_relu(const Tensor& x, const Tensor& skip);

  const double eps;
  double momentum;
  const Tensor &weight, &bias;
  Array &running_mean, &running_var;
  /// Sees what the layer is about to normalise, while it is set: for losses on its statistics.
  std::function<void(const Tensor& x)> watch;
  /// Normalises in its place, while it is set: for batch norms of each bit width.
  std::function<Tensor(const Tensor& x, const Tensor& skip, const BatchNormOptions& options)> instead;
  /// What all of the above are: bn(x), then the skip if it is defined, and the activation of `options`.
  Tensor normalise(const Tensor& x, const Tensor& skip, const BatchNormOptions& options);
};

class ReLU : public Layer {
 public:
  Tensor forward(const Tensor& x) override;
};

class MaxPool2d : public Layer {
 public:
  explicit MaxPool2d(const Pool2dOptions& options) : options(options) {}
  Tensor forward(const Tensor& x) override;
  const Pool2dOptions options;
};

class AvgPool2d : public Layer {
 public:
  explicit AvgPool2d(const Pool2dOptions& options) : options(options) {}
  Tensor forward(const Tensor& x) override;
  const Pool2dOptions options;
};

/// (n, h, w, c) -> (n, c): the mean of each channel.
class GlobalAvgPool : public Layer {
 public:
  Tensor forward(const Tensor& x) override;
};

/// Layers one after the other; their names are 0, 1, 2 ...
class Sequential : public Layer {
 public:
  explicit Sequential(const std::vector<std::shared_ptr<Layer>>& layers = {});
  void add(std::shared_ptr<Layer> layer);
  Tensor forward(const Tensor& x) override;

 private:
  std::vector<std::shared_ptr<Layer>> layers_;
};

}  // namespace stairgrad::nn
