// What the quantizers of a model do to the data: the figures that quantization papers plot over training.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "sites.h"

namespace stairgrad::quant {

/// What one site did to the tensor that passed it.
struct SiteStatistics {
  std::string name;
  nn::Tap::Role role;
  std::map<std::string, double> learned;  ///< learned parameters of the quantizer, averaged over its grids
  double low = 0,
         high = 0;      ///< ends of the grid, likewise; without a grid the least and the largest level in use
  double error = 0;     ///< sum (Q(x) - x)^2 / sum x^2, of x as it is after Quantizer::transform()
  double clipping = 0;  ///< the part of `error` from values more than half a step beyond the ends; without a
                        ///< grid, from all beyond them
  double rounding = 0;   ///< the rest of it
  double saturated = 0;  ///< share of the values that clipping is about
};

/// Of all sites, for one batch that runs through `model`, whose sites they are, in evaluation mode.
std::vector<SiteStatistics> site_statistics(nn::Model& model, const Sites& sites, const Array& images);

}  // namespace stairgrad::quant
