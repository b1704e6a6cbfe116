// Bilinear resizing with antialiasing: a triangle filter as wide as the reduction, in 22-bit fixed point,
// first along rows, then along columns, with 8 bits between the passes. These are the choices of Pillow
// (Resample.c).
#include <algorithm>
#include <cmath>

#include "transforms.h"

namespace stairgrad::data {
namespace {

constexpr int precision = 22;

/// The weights of the source pixels first, first + 1, ... for one pixel of the result.
struct Taps {
  int64_t first;
  std::vector<int32_t> weights;
};

std::vector<Taps> triangle_filter(int64_t source, int64_t result) {
  const double scale = static_cast<double>(source) / static_cast<double>(result),
               width = std::max(scale, 1.0);
  std::vector<Taps> filter;
  for (int64_t i = 0; i < result; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const auto first = std::max<int64_t>(0, static_cast<int64_t>(centre - width + 0.5));
    const auto last = std::min<int64_t>(source, static_cast<int64_t>(centre + width + 0.5));
    std::vector<double> weights;
    double sum = 0;
    for (int64_t x = first; x < last; ++x) {
      const double distance = std::abs((static_cast<double>(x) - centre + 0.5) * (1 / width));
      weights.push_back(std::max(0.0, 1 - distance));
      sum += weights.back();
    }
    Taps taps{first, {}};
    for (const double w : weights)
      taps.weights.push_back(static_cast<int32_t>(0.5 + w / sum * (1 << precision)));
    filter.push_back(std::move(taps));
  }
  return filter;
}

/// Filters the middle axis of u8 (outer, length, inner).
Array filter_axis(const Array& src, int64_t outer, int64_t inner, int64_t length, Shape dst_shape) {
  const int64_t source = src.size() / (outer * inner);
  const std::vector<Taps> filter = triangle_filter(source, length);
  Array dst(dst_shape, DType::u8);
  std::vector<int32_t> sums(static_cast<size_t>(inner));
  uint8_t* to = dst.data<uint8_t>();
  for (int64_t o = 0; o < outer; ++o)
    for (const Taps& taps : filter) {
      std::ranges::fill(sums, 1 << (precision - 1));
      const uint8_t* from = src.data<uint8_t>() + (o * source + taps.first) * inner;
      for (const int32_t weight : taps.weights)
        for (int32_t& sum : sums) sum += weight * *from++;
      for (const int32_t sum : sums) *to++ = static_cast<uint8_t>(std::clamp(sum >> precision, 0, 255));
    }
  return dst;
}

}  // namespace

Array resize(const Array& image, int64_t h, int64_t w) {
  check(image.dtype() == DType::u8 && image.rank() == 3 && image.size() > 0 && h > 0 && w > 0,
        "[resize] got ", name_of(image.dtype()), image.shape(), " to become ", h, " x ", w,
        ", expected u8 (h, w, c), none of them 0");
  Array result = image;
  const int64_t c = image.dim(2);
  if (w != image.dim(1)) result = filter_axis(result, image.dim(0), c, w, {image.dim(0), w, c});
  if (h != image.dim(0)) result = filter_axis(result, 1, w * c, h, {h, w, c});
  return result;
}

Array resize_short_side(const Array& image, int64_t side) {
  const int64_t h = image.dim(0), w = image.dim(1);
  const auto scaled = [&](int64_t longer, int64_t shorter) { return side * longer / shorter; };
  return h <= w ? resize(image, side, scaled(w, h)) : resize(image, scaled(h, w), side);
}

Array random_resized_crop(const Array& image, int64_t side, Draws& draws) {
  constexpr double min_area = 0.08, max_ratio = 4.0 / 3;
  constexpr int attempts = 10;
  const int64_t h = image.dim(0), w = image.dim(1);
  for (int i = 0; i < attempts; ++i) {
    const double area = draws.uniform(min_area, 1) * static_cast<double>(h * w);
    const double ratio = std::exp(draws.uniform(-std::log(max_ratio), std::log(max_ratio)));
    const int64_t crop_w = std::llrint(std::sqrt(area * ratio)),
                  crop_h = std::llrint(std::sqrt(area / ratio));
    if (crop_w < 1 || crop_w > w || crop_h < 1 || crop_h > h) continue;
    const int64_t top = draws.below(h - crop_h + 1), left = draws.below(w - crop_w + 1);
    return resize(crop(image, top, left, crop_h, crop_w), side, side);
  }
  // The picture is too long for the proportions: take as much of the middle as they allow.
  const auto longest = [&](int64_t shorter) { return std::llrint(static_cast<double>(shorter) * max_ratio); };
  const int64_t crop_w = std::min<int64_t>(w, longest(h)), crop_h = std::min<int64_t>(h, longest(w));
  return resize(crop(image, (h - crop_h) / 2, (w - crop_w) / 2, crop_h, crop_w), side, side);
}

}  // namespace stairgrad::data
