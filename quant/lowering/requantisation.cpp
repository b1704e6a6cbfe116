#include "requantisation.h"

#include <cmath>

#include "../../autograd/ops.h"
#include "../../autograd/ops/concat.h"
#include "../image_route.h"
#include "../quantizer.h"

namespace stairgrad::quant::lowering {
namespace {

struct Weights {
  Array integers;            // (oc, kh, kw, ic), s8
  std::vector<double> unit;  // per output channel
  int bits = 8;
};

// Ones, which leave each channel as it is.
Weights identity(int64_t channels) {
  return {Array::full({channels, 1, 1, 1}, 1, DType::s8),
          std::vector<double>(static_cast<size_t>(channels), 1), 1};
}

// `image`: what the layer reads.
Weights weights_of(const Graph& graph, const Tensor& layer, const Tensor& w, const Shape& image) {
  const auto* op = as<QuantizeOp>(w);
  const std::optional<Array> values = op ? graph.constant(input_of(w)) : std::nullopt;
  if (!values) refuse(layer, "its weights are not quantized; give the layer w_bits of 8 or less");
  check_uniform(w, *op);
  const Quantized q{fake_quantize(*values, op->grids), op->grids};
  Weights result;
  result.bits = op->bits();
  const Array integers = q.integers(), unit = q.unit();
  const int64_t channels = integers.dim(0);
  for (int64_t c = 0; c < channels; ++c) result.unit.push_back(unit.data<float>()[unit.size() == 1 ? 0 : c]);
  std::vector<int8_t> codes;
  for (int64_t i = 0; i < integers.size(); ++i) {
    const float code = integers.data<float>()[i];
    if (std::abs(code) > 127 || code != std::nearbyint(code))
      refuse(w, text("the weight code ", code, " does not fit 8 bits"));
    codes.push_back(static_cast<int8_t>(code));
  }
  // A map that is flattened stays a map: a fully connected layer is a convolution over all of it. One that is
  // not flattened has a fully connected layer for each pixel.
  Shape shape = integers.shape();
  if (shape.rank() == 2)
    shape = input_of(layer).rank() == 2 ? Shape{channels, image[0], image[1], image[2]}
                                        : Shape{channels, 1, 1, shape[1]};
  result.integers = Array::of(codes, shape);
  return result;
}

// One, or one for each candidate where they stand side by side.
std::vector<Weights> weights_of(const Graph& graph, const Tensor& layer, const Shape& image) {
  const Tensor& w = input_of(layer, 1);
  if (!as<ConcatOp>(w)) return {weights_of(graph, layer, w, image)};
  const bool routed = as<ImageRouteOp>(input_of(layer, 0));
  if (!routed || w.node()->inputs.size() + 1 != input_of(layer, 0).node()->inputs.size())
    refuse(layer, "its weights are joined of parts, which its input is not routed to");
  std::vector<Weights> all;
  for (const Tensor& part : w.node()->inputs) all.push_back(weights_of(graph, layer, part, image));
  return all;
}

double sum_of_weights(const Weights& weights, int64_t channel) {
  const int64_t n = weights.integers.size() / weights.integers.dim(0);
  const int8_t* codes = weights.integers.data<int8_t>() + channel * n;
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += codes[i];
  return sum;
}

}  // namespace

integer::Convolution convolution(const Graph& graph, const Chain& chain, const integer::Value& from,
                                 const integer::Value& to, const integer::Value* skip) {
  if (chain.maps.size() != 1 && chain.maps.size() != from.alternatives.size())
    refuse(chain.layer,
           text("each image takes one of ", chain.maps.size(), " affine maps behind it, but its input has ",
                from.alternatives.size(), " alternatives"));
  if (chain.limits.low > chain.limits.high)
    refuse(chain.layer, "the limits of its activations exclude each other");
  if (skip && skip->shape != chain.image)
    refuse(chain.layer, text("its result ", chain.image, " and the skip that is added, ", skip->shape,
                             ", have other shapes"));

  const bool is_stored = graph.is_on_grid(chain.layer);
  const std::vector<Weights> weights =
      is_stored ? std::vector{identity(from.shape[2])} : weights_of(graph, chain.layer, from.shape);
  integer::Convolution conv;
  conv.name = chain.layer.node()->scope;
  if (const auto* op = as<Conv2dOp>(chain.layer)) conv.options = op->options;
  if (is_stored) conv.options.groups = from.shape[2];
  conv.weights = weights[0].integers;
  conv.weight_bits = weights[0].bits;
  for (size_t k = 1; k < weights.size(); ++k)
    conv.other_weights.push_back({weights[k].integers, weights[k].bits});

  const double dst_scale = to.codes ? to.grid.scale : 1, dst_zero = to.codes ? to.grid.zero_point : 0;
  double skip_offset = 0;
  if (skip && skip->codes) {
    conv.skip_ratio = static_cast<float>(static_cast<double>(skip->grid.scale) / dst_scale);
    skip_offset = -static_cast<double>(skip->grid.zero_point) * conv.skip_ratio;
  }
  // t = (acc + b) * m, with acc over raw codes.
  const int64_t channels = conv.weights.dim(0);
  const auto alternatives = static_cast<int64_t>(from.alternatives.size());
  conv.b = Array(alternatives ? Shape{alternatives, channels} : Shape{channels});
  conv.m = Array(conv.b.shape());
  for (int64_t row = 0; row < conv.b.size(); ++row) {
    const auto c = static_cast<size_t>(row % channels), k = static_cast<size_t>(row / channels);
    const Weights& own = weights[weights.size() == 1 ? 0 : k];
    const auto& [gain, offset] = chain.maps[chain.maps.size() == 1 ? 0 : k];
    const Grid& grid = alternatives ? from.alternatives[k].grid : from.grid;
    double m = static_cast<double>(grid.scale) * own.unit[c] * gain[c] / dst_scale;
    // A dead channel (gamma = 0) keeps a tiny multiplier, so that the offset can be written as b * m.
    if (std::abs(m) < 0x1p-40) m = std::copysign(0x1p-40, m);
    const auto rounded = static_cast<float>(m);
    const double shift = offset[c] / dst_scale + dst_zero + skip_offset;
    conv.m.data<float>()[row] = rounded;
    conv.b.data<float>()[row] = static_cast<float>(-grid.zero_point * sum_of_weights(own, row % channels) +
                                                   shift / static_cast<double>(rounded));
  }
  if (to.codes) {
    const auto [lo, hi] = chain.limits.codes(to.grid);
    conv.lo = lo;
    conv.hi = hi;
  } else {
    conv.low = static_cast<float>(chain.limits.low);
    conv.high = static_cast<float>(chain.limits.high);
  }
  return conv;
}

}  // namespace stairgrad::quant::lowering
