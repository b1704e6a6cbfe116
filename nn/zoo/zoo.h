// The families of networks behind make_model(). Their parameters have torchvision's names, or those of the
// best known repository; README.md says which.
#pragma once

#include "../model.h"
#include "residual.h"

namespace stairgrad::nn {

/// What comes before the first stage.
enum class Stem {
  imagenet,  ///< strides that make a 224 x 224 image a quarter as long and as wide
  cifar      ///< none: 32 x 32 stays 32 x 32
};

/// Depth 6 n + 2: conv1, layer1 .. layer3, linear.
std::unique_ptr<Model> cifar_resnet(int64_t depth, Shortcut shortcut, const ModelOptions& options);
/// Depth 18, 34 or 50: conv1, layer1 .. layer4, fc.
std::unique_ptr<Model> resnet(int64_t depth, Stem stem, const ModelOptions& options);
/// conv0 .. conv5, fc; image_size must be that of the images.
std::unique_ptr<Model> vgg_small(const ModelOptions& options);
/// model.0 .. model.13, fc.
std::unique_ptr<Model> mobilenet_v1(const ModelOptions& options);
/// features.0 .. features.18, classifier.1.
std::unique_ptr<Model> mobilenet_v2(Stem stem, const ModelOptions& options);
/// 600 or 3200 megaflops: stem, trunk_output.block1 .. block4, fc.
std::unique_ptr<Model> regnet_x(int64_t megaflops, const ModelOptions& options);
/// `alpha` multiplies the channels up to the last convolution, as the width does: layers.0 .. layers.15,
/// classifier.1.
std::unique_ptr<Model> mnasnet(double alpha, const ModelOptions& options);

}  // namespace stairgrad::nn
