// A layer of an integer model, as the recorded graph spells it out: a convolution and what is fused into it.
#pragma once

#include <array>
#include <cmath>
#include <optional>
#include <vector>

#include "graph.h"

namespace stairgrad::quant::lowering {

/// What an activation limits values to.
struct Limits {
  double low = -HUGE_VAL, high = HUGE_VAL;

  bool any() const { return std::isfinite(low) || std::isfinite(high); }
  bool operator==(const Limits&) const = default;
  /// Rounding is monotone and zero is a level, so limits become limits of codes.
  std::array<int, 2> codes(const Grid& g) const;
};

/// Those of a ReLU or clamp.
std::optional<Limits> limits_of(const Tensor& t);

/// Per channel.
struct AffineMap {
  std::vector<double> gain, offset;
};

/// A convolution or fully connected layer with what follows it, as y = act(gain * sum(x w) + offset + skip).
/// What follows a tensor that is stored as codes follows a layer of weights one.
struct Chain {
  Tensor layer;                 ///< the conv2d or linear, or the stored tensor
  Shape image;                  ///< (h, w, c) of y, flattened or not
  std::vector<AffineMap> maps;  ///< one, or one for each candidate of the input, in the units of y
  std::optional<Tensor> skip = {};
  Limits limits = {};

  size_t channels() const { return maps[0].gain.size(); }
};

/// Reads the ops between a layer and its quantizer, outermost first: limits, then the skip, then per-channel
/// affine maps, then the layer itself. Throws argument_error naming the op that cannot be fused.
Chain chain_of(const Graph& graph, const Tensor& t);

}  // namespace stairgrad::quant::lowering
