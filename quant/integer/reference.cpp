#include "reference.h"

#include <cmath>

#include "../../kernels/integer_conv.h"
#include "../../kernels/reduce.h"
#include "../../kernels/threads.h"

namespace stairgrad::quant::integer {
namespace {

// Up to here every integer is an f32.
constexpr double exact_limit = 1 << 24;

// Sums over raw codes as a float convolution; exact because no partial sum reaches exact_limit. Padding must
// hold the source's zero point: convolve (code - zero_point), whose padding is zero, and put zero_point *
// sum(w) back.
Array exact_sums(const Convolution& layer, const Array& codes, const Grid& src) {
  const int64_t channels = layer.weights.dim(0), per_channel = layer.weights.size() / channels;
  const Array weights = cast(layer.weights, DType::f32);
  Array shifted = cast(codes, DType::f32);
  for (int64_t i = 0; i < shifted.size(); ++i) shifted.data<float>()[i] -= src.zero_point;
  Array sums = kernels::conv2d(shifted, weights, layer.options);
  if (src.zero_point == 0) return sums;
  for (int64_t i = 0; i < sums.size(); ++i) {
    const int8_t* w = layer.weights.data<int8_t>() + i % channels * per_channel;
    int64_t total = 0;
    for (int64_t k = 0; k < per_channel; ++k) total += w[k];
    sums.data<float>()[i] += src.zero_point * static_cast<float>(total);
  }
  return sums;
}

bool sums_fit_f32(const Convolution& layer) {
  const int64_t channels = layer.weights.dim(0), per_channel = layer.weights.size() / channels;
  for (int64_t c = 0; c < channels; ++c) {
    double bound = 0;
    for (int64_t k = 0; k < per_channel; ++k)
      bound += 255.0 * std::abs(layer.weights.data<int8_t>()[c * per_channel + k]);
    if (bound >= exact_limit) return false;
  }
  return true;
}

Array convolution(const Model& model, const Convolution& layer, const Arrays& values) {
  const Value& src = model.values[static_cast<size_t>(layer.src)];
  const Value& dst = model.values[static_cast<size_t>(layer.dst)];
  const Array& codes = values[static_cast<size_t>(layer.src)];
  if (!sums_fit_f32(layer)) {
    kernels::IntegerConvSpec spec{.src = codes.shape(),
                                  .conv = layer.options,
                                  .src_zero_point = static_cast<int>(src.grid.zero_point),
                                  .weights = layer.weights,
                                  .b = layer.b,
                                  .m = layer.m,
                                  .requantise = dst.codes,
                                  .lo = layer.lo,
                                  .hi = layer.hi,
                                  .skip = layer.skip >= 0,
                                  .skip_ratio = layer.skip_ratio};
    Array result = layer.skip >= 0
                       ? values[static_cast<size_t>(layer.skip)].clone()
                       : Array(kernels::conv2d_shape(codes.shape(), layer.weights.shape(), layer.options),
                               dst.codes ? DType::u8 : DType::f32);
    kernels::integer_conv_reference(spec, codes, result);
    return result;
  }
  const Array sums = exact_sums(layer, codes, src.grid);
  const float *b = layer.b.data<float>(), *m = layer.m.data<float>();
  const int64_t channels = layer.m.size(), pixels = sums.size() / channels;
  Array result(sums.shape(), dst.codes ? DType::u8 : DType::f32);
  const uint8_t* skip = layer.skip >= 0 ? values[static_cast<size_t>(layer.skip)].data<uint8_t>() : nullptr;
  uint8_t* out = dst.codes ? result.data<uint8_t>() : nullptr;
  float* logits = dst.codes ? nullptr : result.data<float>();
  parallel_for(pixels, 256, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const float* acc = sums.data<float>() + p * channels;
      for (int64_t c = 0; c < channels; ++c) {
        float t = grid::affine(static_cast<int32_t>(acc[c]), b[c], m[c]);
        if (skip) t = grid::add_skip(t, skip[p * channels + c], layer.skip_ratio);
        if (out)
          out[p * channels + c] = static_cast<uint8_t>(grid::round_saturate(t, layer.lo, layer.hi));
        else
          logits[p * channels + c] = t;
      }
    }
  });
  return result;
}

Array average_pool(const AveragePool& layer, const Array& codes, const Grid& dst) {
  const Array sums =
      kernels::reduce(kernels::Reduction::sum, cast(codes, DType::f32), {1, 2}, /*keep_axes=*/true);
  Array result(sums.shape(), DType::u8);
  for (int64_t i = 0; i < sums.size(); ++i) {
    const float t = grid::affine(static_cast<int32_t>(sums.data<float>()[i]), layer.b, layer.m);
    result.data<uint8_t>()[i] = static_cast<uint8_t>(grid::round_saturate(t, dst.lo, dst.hi));
  }
  return result;
}

Array encode(const Array& images, const Grid& dst) {
  Array codes(images.shape(), DType::u8);
  for (int64_t i = 0; i < images.size(); ++i)
    codes.data<uint8_t>()[i] = static_cast<uint8_t>(grid::encode(images.data<float>()[i], dst));
  return codes;
}

Array subsample(const Subsample& layer, const Array& codes, const Grid& grid) {
  const Array pixels = kernels::slice(codes, {{0, codes.dim(0), 1},
                                              {0, codes.dim(1), layer.stride[0]},
                                              {0, codes.dim(2), layer.stride[1]},
                                              {0, codes.dim(3), 1}});
  return kernels::pad(pixels, {0, 0, 0, layer.before}, {0, 0, 0, layer.after}, grid.zero_point);
}

}  // namespace

Arrays evaluate(const Model& model, const Array& images) {
  Arrays values(model.values.size());
  values[static_cast<size_t>(model.input)] = images;
  for (const Layer& layer : model.layers) {
    const Array& src = values[static_cast<size_t>(sources_of(layer)[0])];
    const Grid& grid = model.values[static_cast<size_t>(dst_of(layer))].grid;
    Array& dst = values[static_cast<size_t>(dst_of(layer))];
    if (std::holds_alternative<Encode>(layer)) dst = encode(src, grid);
    if (const auto* c = std::get_if<Convolution>(&layer)) dst = convolution(model, *c, values);
    if (const auto* p = std::get_if<AveragePool>(&layer)) dst = average_pool(*p, src, grid);
    if (const auto* p = std::get_if<MaxPool>(&layer)) dst = kernels::max_pool2d(src, p->options).y;
    if (const auto* s = std::get_if<Subsample>(&layer)) dst = subsample(*s, src, grid);
    if (const auto* r = std::get_if<Remap>(&layer)) {
      dst = Array(src.shape(), DType::u8);
      const uint8_t* from = src.data<uint8_t>();
      uint8_t* to = dst.data<uint8_t>();
      parallel_for(src.size(), 1 << 16, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) to[i] = r->table[from[i]];
      });
    }
  }
  return values;
}

}  // namespace stairgrad::quant::integer
