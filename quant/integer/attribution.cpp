#include "attribution.h"

#include <algorithm>

namespace stairgrad::quant::integer {
namespace {

const Layer& writer_of(const Model& model, int value) {
  for (const Layer& layer : model.layers)
    if (dst_of(layer) == value) return layer;
  throw argument_error(text("[attribution] nothing writes ", model.values[static_cast<size_t>(value)].name));
}

// The value that averages and changes of grid lead from.
int last_map(const Model& model, int value) {
  const Layer* layer = &writer_of(model, value);
  while (std::holds_alternative<AveragePool>(*layer) || std::holds_alternative<Remap>(*layer) ||
         std::holds_alternative<Encode>(*layer)) {
    value = sources_of(*layer)[0];
    layer = &writer_of(model, value);
  }
  const Shape& map = model.values[static_cast<size_t>(value)].shape;
  check(map[0] * map[1] > 1, "[attribution] the last layer reads the ", op_of(*layer), ' ',
        name_of(model, *layer), ", whose result has one pixel; expected averages of a feature map");
  return value;
}

}  // namespace

Array attribution_map(const Model& model, const Session& session, const std::vector<int32_t>& classes) {
  const auto* head = std::get_if<Convolution>(&writer_of(model, model.output));
  check(head != nullptr && head->options.groups == 1 && head->skip < 0,
        "[attribution] the last layer is not fully connected");
  const int at = last_map(model, head->src);
  const Value& map = model.values[static_cast<size_t>(at)];
  const Array& x = session.value(at);
  const int64_t pixels = map.shape[0] * map.shape[1], channels = map.shape[2];
  const int64_t taps = head->weights.dim(1) * head->weights.dim(2);
  check(head->weights.dim(3) == channels, "[attribution] the last layer reads ", head->weights.dim(3),
        " channels, but the last feature map has ", channels);
  check(static_cast<int64_t>(classes.size()) == x.dim(0), "[attribution] got ", classes.size(),
        " classes for ", x.dim(0), " images");
  Array result({x.dim(0), map.shape[0], map.shape[1]});
  for (int64_t n = 0; n < x.dim(0); ++n) {
    const int64_t label = classes[static_cast<size_t>(n)];
    check(label >= 0 && label < head->weights.dim(0), "[attribution] got the class ", label, " of ",
          head->weights.dim(0));
    std::vector<double> gradient(static_cast<size_t>(channels), 0);  // but for a positive factor
    for (int64_t i = 0; i < taps * channels; ++i)
      gradient[static_cast<size_t>(i % channels)] +=
          head->weights.data<int8_t>()[label * taps * channels + i];
    const double sign = head->m.data<float>()[label] < 0 ? -1 : 1;
    float* to = result.data<float>() + n * pixels;
    for (int64_t p = 0; p < pixels; ++p) {
      double sum = 0;
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t i = (n * pixels + p) * channels + c;
        const double value =
            map.codes ? x.data<uint8_t>()[i] - static_cast<double>(map.grid.zero_point) : x.data<float>()[i];
        sum += gradient[static_cast<size_t>(c)] * value;
      }
      to[p] = static_cast<float>(std::max(0.0, sign * sum));
    }
    const float largest = *std::max_element(to, to + pixels);
    for (int64_t p = 0; p < pixels && largest > 0; ++p) to[p] /= largest;
  }
  return result;
}

}  // namespace stairgrad::quant::integer
