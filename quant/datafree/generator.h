// The generator of GDFQ (Xu et al., ECCV'20): noise and a label in, an image out.
#pragma once

#include "../../nn/layers.h"

namespace stairgrad::quant::datafree {

/// (z * (y E)) -> fully connected to (s/4, s/4, 128) -> norm -> double -> conv 128 -> norm -> leaky ReLU ->
/// double
/// -> conv 64 -> norm -> leaky ReLU -> conv -> tanh -> norm without learned parameters, for images of side s.
/// Two norms have eps 0.8, which the published code passes where it means the momentum. E holds a row for
/// each class; soft labels mix rows (Choi et al., Qimera, NeurIPS'21). Given embeddings (classes, features),
/// E starts as they are, and the images start from y E + z instead, its rows normalised, then fully connected
/// to 100 (Qimera's, whose embeddings are the classifier's weights).
class Generator : public nn::Module {
 public:
  /// `side` must be a multiple of 4.
  Generator(int64_t classes, int64_t side, int64_t channels, const Array& embeddings = {});
  void reset(uint64_t seed, const std::string& path) override;
  /// Numbers that an image is drawn from.
  int64_t noise() const { return embedding_.dim(1); }
  /// z (n, noise()), labels (n, classes) -> images (n, side, side, channels), normalised.
  Tensor operator()(const Tensor& z, const Tensor& labels);
  /// Those that are learned.
  std::vector<nn::NamedTensor> learned() const;

 private:
  int64_t quarter_;
  Array given_;  // what the embeddings start as, if not at random
  const Tensor& embedding_;
  std::shared_ptr<nn::Linear> reduce_, spread_;
  std::shared_ptr<nn::Conv2d> conv1_, conv2_, conv3_;
  std::shared_ptr<nn::BatchNorm2d> norm0_, norm1_, norm2_, norm3_;
};

}  // namespace stairgrad::quant::datafree
