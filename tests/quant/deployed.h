// Networks of the zoo as integer models, and what tests of those need.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../../kernels/same_bytes.h"
#include "../../nn/model.h"
#include "../../quant/integer/model.h"
#include "../../quant/lower.h"
#include "../../quant/sites.h"
#include "batch_norms.h"

namespace stairgrad::quant {

inline Array images_of(const Shape& shape, uint64_t stream = 1) {
  return random_normal(shape, Philox(5, stream));
}

// A network as after a training: batch norm with statistics and scales of its own, some channels dead.
inline std::unique_ptr<nn::Model> network(const std::string& name, int64_t size = 12, int64_t channels = 3,
                                          double width = 0.5, const nn::ConvStyle& style = {}) {
  auto model = nn::make_model(
      name, {.in_channels = channels, .image_size = size, .classes = 10, .width = width, .style = style});
  nn::initialise(*model, 3);
  settle_batch_norms(*model, /*scales=*/true);
  model->eval();
  return model;
}

struct Case {
  std::string model, quantizer;
  int w_bits, a_bits;
  Skip skip;
  Ends ends;
  std::string granularity = "layer";
  double width = 0.5;
  nn::ConvStyle style = {};
  int64_t size = 12;  // of the images
};

struct Deployed {
  std::unique_ptr<nn::Model> model;
  integer::Model lowered;
};

inline Deployed quantized(const Case& c) {
  Deployed q{network(c.model, c.size, 3, c.width, c.style), {}};
  attach_sites(*q.model,
               uniform_policy(*q.model, {c.w_bits, c.a_bits, c.quantizer, c.granularity}, c.skip, c.ends));
  calibrate(*q.model, images_of(q.model->input_shape(16)));
  q.lowered = lower(
      trace([&](const Tensors& in) { return (*q.model)(in[0]); }, {Array::zeros(q.model->input_shape())}));
  return q;
}

inline const std::vector<Case> cases = {
    {"resnet8", "dsq", 4, 4, Skip::u8, Ends::eight},
    {"resnet8", "dsq", 2, 3, Skip::shared, Ends::same},
    {"resnet8b", "dsq", 8, 8, Skip::u8, Ends::same},
    {"resnet8b", "lsq", 4, 4, Skip::shared, Ends::eight},
    {"resnet14", "lsq", 3, 2, Skip::u8, Ends::eight},
    {"resnet8", "ste", 5, 6, Skip::u8, Ends::same},
    {"resnet8", "lsq", 1, 1, Skip::u8, Ends::eight},
    {"resnet8", "dsq", 4, 8, Skip::u8, Ends::eight, "channel"},
    {"resnet20", "dsq", 7, 7, Skip::shared, Ends::same},
    {"resnet8", "dsq", 1, 2, Skip::u8, Ends::same},
    {"resnet8", "lsq", 4, 4, Skip::floating, Ends::eight},
    {"resnet8",
     "dsq",
     1,
     1,
     Skip::u8,
     Ends::eight,
     "layer",
     0.5,
     {false, false, 1e-5, nn::Activation::hardtanh}},
    {"resnet8b",
     "binary",
     1,
     1,
     Skip::u8,
     Ends::eight,
     "channel",
     0.5,
     {false, false, 1e-5, nn::Activation::hardtanh}},
};

// The other families: bottlenecks, max pools, depthwise and grouped convolutions, ReLU6, skips without ReLU,
// biases instead of batch norms, one-sided padding.
inline const std::vector<Case> families = {
    {"resnet18", "dsq", 4, 4, Skip::u8, Ends::eight, "layer", 0.25},
    {"resnet50", "lsq", 4, 4, Skip::shared, Ends::eight, "channel", 0.125},
    {"vgg_small", "dsq", 4, 3, Skip::u8, Ends::eight, "layer", 0.125},
    {"vgg_small", "lsq", 8, 8, Skip::shared, Ends::same, "layer", 0.125},
    {"mobilenet_v1", "dsq", 8, 8, Skip::u8, Ends::same, "channel", 0.25},
    {"mobilenet_v2", "lsq", 8, 8, Skip::u8, Ends::same, "channel", 0.25},
    {"mobilenet_v2_cifar", "dsq", 4, 4, Skip::shared, Ends::eight, "layer", 0.25},
    {"regnetx_600mf", "dsq", 4, 4, Skip::u8, Ends::eight, "layer", 0.5},
    {"mnasnet1_0", "lsq", 6, 8, Skip::u8, Ends::eight, "layer", 0.25},
    {"mobilenet_v2", "lsq", 8, 8, Skip::u8, Ends::same, "channel", 0.25, {true, true}, 32},
    {"resnet18", "dsq", 4, 4, Skip::u8, Ends::eight, "layer", 0.125, {true}},
    {"resnet18", "dsq", 4, 4, Skip::floating, Ends::eight, "layer", 0.125},
    {"mobilenet_v2", "lsq", 8, 6, Skip::floating, Ends::same, "channel", 0.25},
};

inline std::vector<Case> all_cases() {
  std::vector<Case> all = cases;
  all.insert(all.end(), families.begin(), families.end());
  return all;
}

// Images of shape `image` in codes, and one convolution of them to floats.
inline integer::Model one_convolution(const Shape& image, const Array& weights,
                                      const Conv2dOptions& options) {
  const Shape all = kernels::conv2d_shape({1, image[0], image[1], image[2]}, weights.shape(), options);
  integer::Model m;
  m.values = {{"images", image, false, 0, {}, ""},
              {"codes", image, true, 8, {1, 0, 0, 255}, ""},
              {"logits", {all[1], all[2], all[3]}, false, 0, {}, ""}};
  m.output = 2;
  integer::Convolution c;
  c.name = "layer";
  c.src = 1;
  c.dst = 2;
  c.options = options;
  c.weights = weights;
  c.b = Array::zeros({all[3]});
  c.m = Array::full({all[3]}, 1);
  m.layers = {integer::Encode{0, 1}, c};
  return m;
}

}  // namespace stairgrad::quant
