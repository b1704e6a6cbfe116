#include "augment.h"

#include <algorithm>
#include <cmath>

#include "../../autograd/ops.h"
#include "../../kernels/threads.h"

namespace stairgrad::quant::datafree {
namespace {

struct Box {
  int64_t top, left, h, w;
  bool flip;
};

// Six random numbers from `index` on.
Box draw_box(int64_t h, int64_t w, const Philox& rng, uint64_t index) {
  const double area = 0.5 + 0.5 * rng.uniform(index),
               ratio = std::pow(16.0 / 9, rng.uniform(index + 1) - 0.5);
  const auto side = [&](int64_t whole, double share) {
    return std::clamp<int64_t>(std::llround(static_cast<double>(whole) * share), 1, whole);
  };
  Box box{0, 0, side(h, std::sqrt(area / ratio)), side(w, std::sqrt(area * ratio)),
          rng.uniform(index + 2) < 0.5};
  box.top = static_cast<int64_t>(rng.below(index + 3, static_cast<uint64_t>(h - box.h + 1)));
  box.left = static_cast<int64_t>(rng.below(index + 4, static_cast<uint64_t>(w - box.w + 1)));
  return box;
}

// Where pixel i of `to` lies among `from` ones: between two neighbours.
struct Between {
  int64_t low, high;
  float share;  // of high
};
Between place(int64_t i, int64_t from, int64_t to) {
  const double at = std::max(
      0.0, (static_cast<double>(i) + 0.5) * static_cast<double>(from) / static_cast<double>(to) - 0.5);
  const auto low = std::min(static_cast<int64_t>(at), from - 1);
  return {low, std::min(low + 1, from - 1), static_cast<float>(at - static_cast<double>(low))};
}

void resample(const float* from, float* to, const Shape& shape, const Box& box) {
  const int64_t h = shape[1], w = shape[2], c = shape[3];
  for (int64_t y = 0; y < h; ++y) {
    const Between v = place(y, box.h, h);
    const float *upper = from + (box.top + v.low) * w * c, *lower = from + (box.top + v.high) * w * c;
    for (int64_t x = 0; x < w; ++x, to += c) {
      const Between u = place(box.flip ? w - 1 - x : x, box.w, w);
      const int64_t left = (box.left + u.low) * c, right = (box.left + u.high) * c;
      for (int64_t k = 0; k < c; ++k) {
        const float top = upper[left + k] + (upper[right + k] - upper[left + k]) * u.share;
        const float bottom = lower[left + k] + (lower[right + k] - lower[left + k]) * u.share;
        to[k] = top + (bottom - top) * v.share;
      }
    }
  }
}

}  // namespace

Tensor crop_and_flip(const Tensor& images, Philox rng) {
  const int64_t h = images.dim(1), w = images.dim(2);
  const Box box = draw_box(h, w, rng, 0);
  Tensor y = slice(slice(images, 1, box.top, box.top + box.h), 2, box.left, box.left + box.w);
  y = resize_bilinear(y, h, w);
  if (!box.flip) return y;
  std::vector<int32_t> mirrored;
  for (int64_t x = 0; x < w; ++x) mirrored.push_back(static_cast<int32_t>(w - 1 - x));
  return index_select(y, 2, Array::of(mirrored));
}

Array crop_and_flip_each(const Array& images, Philox rng) {
  Array result(images.shape());
  const int64_t n = images.dim(0), size = n ? images.size() / n : 0;
  parallel_for(n, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      resample(images.data<float>() + i * size, result.data<float>() + i * size, images.shape(),
               draw_box(images.dim(1), images.dim(2), rng, static_cast<uint64_t>(i) * 8));
  });
  return result;
}

Tensor total_variation(const Tensor& images) {
  const int64_t h = images.dim(1), w = images.dim(2);
  Tensor total = mean(square(images)) * 0;
  if (h > 1) total = total + mean(square(slice(images, 1, 1, h) - slice(images, 1, 0, h - 1)));
  if (w > 1) total = total + mean(square(slice(images, 2, 1, w) - slice(images, 2, 0, w - 1)));
  return total;
}

}  // namespace stairgrad::quant::datafree
