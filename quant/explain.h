// Where quantization costs accuracy, and what each layer takes: a lowered network layer by layer.
#pragma once

#include <string>
#include <vector>

#include "../nn/model.h"
#include "integer/model.h"

namespace stairgrad::quant {

/// How far values are from those of the float network.
struct Distance {
  double sqnr = 0;    ///< 10 log10(sum x^2 / sum (x - y)^2), dB; infinite where they are equal
  double cosine = 0;  ///< x y / (|x| |y|)
};

/// A layer of the integer model. Distances are NaN where the float network has no such tensor.
struct LayerExplanation {
  std::string name, op, implementation;
  int w_bits = 0, a_bits = 0;  ///< of the layer's weights and of what it reads; 0: none, floats
  Distance alone;              ///< given the float network's activations, put on the grids of what it reads
  Distance cumulative;         ///< in the integer run
  double saturated = 0;  ///< share of codes at an end of the grid beyond which the float network has values
  int64_t codes = 0, mismatched = 0;  ///< written, and those that differ from the quantized evaluation
  double seconds = 0;                 ///< for all the images
};

/// Runs `images` through the float network (the weights of `model`, its quantizers taken out for the time),
/// the integer runtime and the quantized evaluation. `lowered` is made from `model` with its sites. Throws
/// argument_error where values have alternatives: a distance over images on several grids says little.
std::vector<LayerExplanation> explain(const integer::Model& lowered, nn::Model& model, const Array& images);

/// The distance of y from x; both f32 of one size.
Distance distance(const Array& x, const Array& y);

}  // namespace stairgrad::quant
