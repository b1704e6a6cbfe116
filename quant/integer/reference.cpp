#include "reference.h"

#include <algorithm>
#include <cmath>

#include "../../kernels/elementwise.h"
#include "../../kernels/integer_conv.h"
#include "../../kernels/movement.h"
#include "../../kernels/reduce.h"
#include "../../kernels/threads.h"

namespace stairgrad::quant::integer {
namespace {

// Up to here every integer is an f32.
constexpr int64_t exact_limit = 1 << 24;

// Sums over raw codes as a float convolution; exact because no partial sum reaches exact_limit. Padding must
// hold the source's zero point: convolve (code - zero_point), whose padding is zero, and put zero_point *
// sum(w) back.
Array exact_sums(const Convolution& layer, const Array& codes, const Grid& src) {
  const Array weights = cast(layer.weights, DType::f32);
  const Array shifted = kernels::affine(cast(codes, DType::f32), 1, -src.zero_point);
  const Array sums = kernels::conv2d(shifted, weights, layer.options);
  if (src.zero_point == 0) return sums;
  const Array of_weights = kernels::reduce(kernels::Reduction::sum, weights, {1, 2, 3});
  return kernels::binary(kernels::Binary::add, sums, kernels::affine(of_weights, src.zero_point, 0));
}

const Value& value_of(const Model& model, int index) { return model.values[static_cast<size_t>(index)]; }

// A convolution of images that have the same alternative, whose grid is src.
Array convolution(const Model& model, const Convolution& layer, const Array& codes, const Array& skip,
                  const Grid& src) {
  const Array &b = layer.b, &m = layer.m;
  const Value& dst = value_of(model, layer.dst);
  const Shape shape = kernels::conv2d_shape(codes.shape(), layer.weights.shape(), layer.options);
  Array result(shape, dst.codes ? DType::u8 : DType::f32);
  if (!kernels::sums_fit(layer.weights, exact_limit)) {
    const kernels::IntegerConvSpec spec{.src = codes.shape(),
                                        .conv = layer.options,
                                        .src_zero_point = static_cast<int>(src.zero_point),
                                        .weights = layer.weights,
                                        .b = b,
                                        .m = m,
                                        .requantise = dst.codes,
                                        .lo = layer.lo,
                                        .hi = layer.hi,
                                        .low = layer.low,
                                        .high = layer.high,
                                        .skip = skip.has_value() && skip.dtype() == DType::u8,
                                        .skip_ratio = layer.skip_ratio,
                                        .float_skip = skip.has_value() && skip.dtype() == DType::f32};
    kernels::integer_conv_reference(spec, codes, result, skip);
    return result;
  }
  const Array summed = exact_sums(layer, codes, src);
  const int64_t channels = m.size(), pixels = summed.size() / channels;
  const float *sums = summed.data<float>(), *bias = b.data<float>(), *multiplier = m.data<float>();
  const bool skips = skip.has_value(), coded_skip = skips && skip.dtype() == DType::u8;
  const auto* skip_codes = coded_skip ? skip.data<uint8_t>() : nullptr;
  const auto* skip_values = skips && !coded_skip ? skip.data<float>() : nullptr;
  auto* coded = dst.codes ? result.data<uint8_t>() : nullptr;
  auto* plain = dst.codes ? nullptr : result.data<float>();
  parallel_for(pixels, 256, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p)
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t i = p * channels + c;
        float t = grid::affine(static_cast<int32_t>(sums[i]), bias[c], multiplier[c]);
        if (skip_codes)
          t = grid::add_skip(t, skip_codes[i], layer.skip_ratio);
        else if (skip_values)
          t = t + skip_values[i];
        if (coded)
          coded[i] = static_cast<uint8_t>(grid::round_saturate(t, layer.lo, layer.hi));
        else
          plain[i] = t > layer.low ? (t < layer.high ? t : layer.high) : layer.low;
      }
  });
  return result;
}

// One by one where images have different grids.
Array convolution(const Model& model, const Convolution& layer, const Arrays& values, const Array& choices) {
  const Value& src = value_of(model, layer.src);
  const Array& codes = values[static_cast<size_t>(layer.src)];
  const Array skip = layer.skip < 0 ? Array() : values[static_cast<size_t>(layer.skip)];
  if (src.alternatives.empty()) return convolution(model, layer, codes, skip, src.grid);
  Arrays parts;
  for (int64_t i = 0; i < codes.dim(0); ++i) {
    const int64_t chosen = choices.has_value() ? choices.data<uint8_t>()[i * choices.dim(1) + src.choice] : 0;
    parts.push_back(convolution(model, alternative_of(layer, chosen), codes.slice(i, 1),
                                skip.has_value() ? skip.slice(i, 1) : skip,
                                src.alternatives[static_cast<size_t>(chosen)].grid));
  }
  return kernels::concat(parts, 0);
}

// Sums over windows in double: exact for codes, and for floats as the definition says.
Array average_pool(const AveragePool& layer, const Array& x, const Value& src, const Value& dst) {
  const Pool2dOptions& o = layer.options;
  Array result(kernels::pool2d_shape(x.shape(), o), dst.codes ? DType::u8 : DType::f32);
  const int64_t channels = x.dim(3);
  for (int64_t i = 0; i < result.size(); ++i) {
    const int64_t c = i % channels, column = i / channels % result.dim(2),
                  row = i / channels / result.dim(2) % result.dim(1),
                  image = i / channels / result.dim(2) / result.dim(1);
    double sum = 0;
    for (int64_t y = row * o.stride[0] - o.padding[0], rows = 0; rows < o.kernel[0]; ++y, ++rows)
      for (int64_t z = column * o.stride[1] - o.padding[1], columns = 0; columns < o.kernel[1];
           ++z, ++columns) {
        const bool inside = y >= 0 && y < x.dim(1) && z >= 0 && z < x.dim(2);
        const int64_t at = ((image * x.dim(1) + y) * x.dim(2) + z) * channels + c;
        if (!src.codes)
          sum += inside ? static_cast<double>(x.data<float>()[at]) : 0;
        else
          sum += inside ? x.data<uint8_t>()[at] : static_cast<double>(src.grid.zero_point);
      }
    const float t = (static_cast<float>(sum) + layer.b) * layer.m;
    if (dst.codes)
      result.data<uint8_t>()[i] = static_cast<uint8_t>(grid::round_saturate(t, dst.grid.lo, dst.grid.hi));
    else
      result.data<float>()[i] = t;
  }
  return result;
}

Array encode(const Array& images, const Grid& dst) {
  Array codes(images.shape(), DType::u8);
  std::transform(images.data<float>(), images.data<float>() + images.size(), codes.data<uint8_t>(),
                 [&](float x) { return static_cast<uint8_t>(grid::encode(x, dst)); });
  return codes;
}

Array remap(const Remap& layer, const Array& codes, int choice, const Array& choices) {
  Array result(codes.shape(), DType::u8);
  const int64_t size = codes.size() / codes.dim(0);
  const auto* from = codes.data<uint8_t>();
  auto* to = result.data<uint8_t>();
  parallel_for(codes.dim(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const size_t table =
          choice < 0 || !choices.has_value() ? 0 : choices.data<uint8_t>()[i * choices.dim(1) + choice];
      std::transform(from + i * size, from + (i + 1) * size, to + i * size,
                     [&](uint8_t code) { return layer.tables[table][code]; });
    }
  });
  return result;
}

Array subsample(const Subsample& layer, const Array& x, const Value& dst) {
  const Array pixels = kernels::slice(
      x,
      {{0, x.dim(0), 1}, {0, x.dim(1), layer.stride[0]}, {0, x.dim(2), layer.stride[1]}, {0, x.dim(3), 1}});
  return kernels::pad(pixels, {0, 0, 0, layer.before}, {0, 0, 0, layer.after},
                      dst.codes ? dst.grid.zero_point : 0);
}

Array concat(const Concat& layer, const Arrays& values) {
  Arrays parts;
  for (const int src : layer.srcs) parts.push_back(values[static_cast<size_t>(src)]);
  return kernels::concat(parts, 3);
}

Array moments(const Array& codes, const Value& src, const Value& dst) {
  const int64_t channels = codes.dim(3), pixels = codes.dim(1) * codes.dim(2);
  Array result({codes.dim(0), 1, 1, 2 * channels}, DType::u8);
  for (int64_t i = 0; i < codes.dim(0); ++i)
    for (int64_t c = 0; c < channels; ++c) {
      int64_t sum = 0, squares = 0;
      for (int64_t p = 0; p < pixels; ++p) {
        const int64_t x = codes.data<uint8_t>()[(i * pixels + p) * channels + c] -
                          static_cast<int64_t>(src.grid.zero_point);
        sum += x;
        squares += x * x;
      }
      const double mean = static_cast<double>(sum) / static_cast<double>(pixels);
      const double var = static_cast<double>(squares) / static_cast<double>(pixels) - mean * mean;
      const double both[] = {mean, std::sqrt(std::max(0.0, var))};
      for (int64_t k = 0; k < 2; ++k)
        result.data<uint8_t>()[(i * 2 + k) * channels + c] = static_cast<uint8_t>(
            grid::encode(static_cast<float>(static_cast<double>(src.grid.scale) * both[k]), dst.grid));
    }
  return result;
}

Array select(const Array& logits, int64_t sites) {
  const int64_t n = logits.dim(0), k = logits.dim(3) / sites;
  Array result({n, 1, 1, sites}, DType::u8);
  for (int64_t i = 0; i < n * sites; ++i) {
    const float* row = logits.data<float>() + i * k;
    result.data<uint8_t>()[i] = static_cast<uint8_t>(std::max_element(row, row + k) - row);
  }
  return result;
}

}  // namespace

Array evaluate_layer(const Model& model, const Layer& layer, const Arrays& values, const Array& choices) {
  const int from = sources_of(layer)[0];
  const Array& src = values[static_cast<size_t>(from)];
  const Value& to = value_of(model, dst_of(layer));
  if (std::holds_alternative<Encode>(layer)) return encode(src, to.grid);
  if (const auto* p = std::get_if<AveragePool>(&layer))
    return average_pool(*p, src, value_of(model, from), to);
  if (const auto* p = std::get_if<MaxPool>(&layer)) return kernels::max_pool2d(src, p->options).y;
  if (const auto* s = std::get_if<Subsample>(&layer)) return subsample(*s, src, to);
  if (const auto* r = std::get_if<Remap>(&layer)) return remap(*r, src, to.choice, choices);
  if (const auto* c = std::get_if<Concat>(&layer)) return concat(*c, values);
  if (std::holds_alternative<Moments>(layer)) return moments(src, value_of(model, from), to);
  if (std::holds_alternative<Select>(layer)) return select(src, to.shape[2]);
  return convolution(model, std::get<Convolution>(layer), values, choices);
}

Arrays evaluate(const Model& model, const Array& images, const Array& choices) {
  Arrays values(model.values.size());
  values[static_cast<size_t>(model.input)] = images;
  const int64_t n = images.dim(0), columns = choices_of(model);
  Array chosen = choices;
  if (!choices.has_value() && selects(model)) chosen = Array::zeros({n, columns}, DType::u8);
  for (const Layer& layer : model.layers) {
    const Array value = evaluate_layer(model, layer, values, chosen);
    values[static_cast<size_t>(dst_of(layer))] = value;
    const auto* select = std::get_if<Select>(&layer);
    for (int64_t i = 0; select && !choices.has_value() && i < n; ++i)
      std::copy_n(value.data<uint8_t>() + i * value.dim(3), value.dim(3),
                  chosen.data<uint8_t>() + i * columns + select->first);
  }
  return values;
}

}  // namespace stairgrad::quant::integer
