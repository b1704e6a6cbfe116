#include "depthwise.h"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>
#include <vector>

#include "simd/simd.h"
#include "threads.h"

namespace stairgrad::kernels::depthwise {
namespace {

constexpr int64_t grain = 1 << 14;  // elements of a piece of parallel work

// Row-major images (n, h, w, c).
struct Images {
  int64_t n, h, w, c;
  explicit Images(const Array& a) : n(a.dim(0)), h(a.dim(1)), w(a.dim(2)), c(a.dim(3)) {}
  int64_t rows() const { return n * h; }
  // Position of the first channel of the first pixel of a row.
  int64_t at(int64_t image, int64_t row) const { return (image * h + row) * w * c; }
};

// Of `rows` rows from `top` on, those that lie in an image of h rows.
struct RowsInside {
  int64_t first, skipped, count;
  RowsInside(int64_t top, int64_t rows, int64_t h)
      : first(std::max<int64_t>(top, 0)),
        skipped(first - top),
        count(std::max<int64_t>(0, std::min(top + rows, h) - first)) {}
};

// Neighbouring channels of a row of an image.
struct Part {
  int64_t image, row, channel, channels;
};

// Calls body(part) for the rows [begin, end) of `images`: in each image one block of channels after the
// other, so small that the k rows it meets stay in the first cache until the next row needs them.
template <class T, class Body>
void for_parts(const Images& images, int64_t k, int64_t begin, int64_t end, const Body& body) {
  constexpr int64_t vector = simd::depthwise_vector<T>;
  const int64_t fitting = std::max<int64_t>(8 * vector, (1 << 14) / sizeof(T) / (k * images.w));
  const int64_t blocks = std::max<int64_t>(1, (images.c + fitting / 2) / fitting);
  const auto edge = [&](int64_t block) {
    return block == blocks ? images.c : images.c * block / blocks / vector * vector;
  };
  for (int64_t first = begin, last; first < end; first = last) {
    last = std::min(end, (first / images.h + 1) * images.h);
    for (int64_t block = 0; block < blocks; ++block)
      for (int64_t i = first; i < last; ++i)
        body(Part{i / images.h, i % images.h, edge(block), edge(block + 1) - edge(block)});
  }
}

// The same for all rows, in parallel.
template <class T, class Body>
void for_parts(const Images& images, int64_t k, const Body& body) {
  parallel_for(images.rows(), std::max<int64_t>(1, grain / (images.w * images.c)),
               [&](int64_t begin, int64_t end) { for_parts<T>(images, k, begin, end, body); });
}

template <class T>
void clear(T* pixel, const Images& images, const Part& part) {
  for (int64_t x = 0; x < images.w; ++x, pixel += images.c) std::fill_n(pixel, part.channels, T{});
}

// The taps in `order`, each a row of channels, rounded to T.
template <class T>
Array arranged(const Array& weights, const std::vector<int64_t>& order) {
  const int64_t c = weights.dim(0), taps = weights.dim(1) * weights.dim(2);
  Array result({static_cast<int64_t>(order.size()), c}, dtype_of<T>);
  T* to = result.data<T>();
  dispatch_floating(weights.dtype(), [&](auto zero) {
    const auto* from = weights.data<decltype(zero)>();
    for (int64_t i = 0; i < c; ++i, from += taps)
      for (size_t k = 0; k < order.size(); ++k)
        to[static_cast<int64_t>(k) * c + i] = static_cast<T>(static_cast<float>(from[order[k]]));
  });
  return result;
}

// What the forward reads for a part of a row of dst, where `rows` of src lie under the taps.
simd::DepthwiseRow row_of(const Part& part, const RowsInside& rows, const Images& src, const Images& dst,
                          int64_t k, const Conv2dOptions& o) {
  return {.channels = part.channels,
          .pitch = src.c,
          .width = src.w,
          .rows = rows.count,
          .columns = k,
          .stride = o.stride[1],
          .first = -o.padding[2],
          .count = dst.w,
          .step = 1};
}

template <class T>
void forward(ConvArrays& a, const Conv2dOptions& o) {
  const Images src(a.src), dst(a.dst);
  const int64_t k = a.weights.dim(1), c = src.c;
  std::vector<int64_t> order(static_cast<size_t>(k * k));
  std::iota(order.begin(), order.end(), 0);
  const Array taps = arranged<T>(a.weights, order);
  const T *weights = taps.data<T>(), *from = a.src.data<T>();
  T* to = a.dst.data<T>();
  for_parts<T>(dst, k, [&](const Part& part) {
    const RowsInside rows(part.row * o.stride[0] - o.padding[0], k, src.h);
    T* row = to + dst.at(part.image, part.row) + part.channel;
    if (rows.count == 0) return clear(row, dst, part);
    simd::depthwise_loops<T>().forward(from + src.at(part.image, rows.first) + part.channel,
                                       weights + rows.skipped * k * c + part.channel, row,
                                       row_of(part, rows, src, dst, k, o));
  });
}

// The results that read a position of src along one axis: `count` of them from `first` on, through the taps
// phase + stride * (count - 1), ..., phase + stride, phase.
struct Readers {
  int64_t phase, count, first;
  Readers(int64_t position, int64_t k, int64_t stride, int64_t padding)
      : phase((position + padding) % stride),
        count((k - phase + stride - 1) / stride),
        first((position + padding) / stride - count + 1) {}
};

// Positions `stride` apart are read through the same taps: for them this is a convolution of diff_dst with
// stride 1.
template <class T>
void backward_data(ConvArrays& a, const Conv2dOptions& o) {
  const Images src(a.src), dst(a.dst);
  const int64_t k = a.weights.dim(1), c = src.c, stride = o.stride[0];
  std::vector<int64_t> order;
  std::array<int64_t, 4> first_tap{};  // of each pair of phases
  for (int64_t phases = 0; phases < stride * stride; ++phases) {
    first_tap[static_cast<size_t>(phases)] = static_cast<int64_t>(order.size());
    const auto last = [=](int64_t phase) { return phase + (k - 1 - phase) / stride * stride; };
    for (int64_t y = last(phases / stride); y >= 0; y -= stride)
      for (int64_t x = last(phases % stride); x >= 0; x -= stride) order.push_back(y * k + x);
  }
  const Array taps = arranged<T>(a.weights, order);
  const T *weights = taps.data<T>(), *from = a.dst.data<T>();
  T* to = a.src.data<T>();
  for_parts<T>(src, k, [&](const Part& part) {
    const Readers vertical(part.row, k, stride, o.padding[0]);
    const RowsInside rows(vertical.first, vertical.count, dst.h);
    T* row = to + src.at(part.image, part.row) + part.channel;
    if (rows.count == 0) return clear(row, src, part);
    for (int64_t x = 0; x < std::min(stride, src.w); ++x) {
      const Readers horizontal(x, k, stride, o.padding[2]);
      const int64_t tap = first_tap[static_cast<size_t>(vertical.phase * stride + horizontal.phase)] +
                          rows.skipped * horizontal.count;
      simd::depthwise_loops<T>().forward(from + dst.at(part.image, rows.first) + part.channel,
                                         weights + tap * c + part.channel, row + x * c,
                                         {.channels = part.channels,
                                          .pitch = c,
                                          .width = dst.w,
                                          .rows = rows.count,
                                          .columns = horizontal.count,
                                          .stride = 1,
                                          .first = horizontal.first,
                                          .count = (src.w - x + stride - 1) / stride,
                                          .step = stride});
    }
  });
}

// Sums over pieces of the batch, which follow from the shape alone, are added in order.
template <class T>
void backward_weights(ConvArrays& a, const Conv2dOptions& o) {
  const Images src(a.src), dst(a.dst);
  const int64_t k = a.weights.dim(1), c = src.c, taps = k * k, pixels = dst.rows() * dst.w;
  // With 8 pixels a tap the sums are small beside the images; threads share a power of two evenly.
  const int64_t worthwhile = std::min({pixels * c / grain, pixels / (8 * taps), dst.rows(), int64_t{32}});
  const auto pieces =
      static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(std::max<int64_t>(1, worthwhile))));
  Array partial({pieces, taps, c});
  float* sums = partial.data<float>();
  const T *from = a.src.data<T>(), *diff_dst = a.dst.data<T>();
  parallel_for(pieces, 1, [&](int64_t begin, int64_t end) {
    std::fill_n(sums + begin * taps * c, (end - begin) * taps * c, 0.0f);
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t first = dst.rows() * piece / pieces, last = dst.rows() * (piece + 1) / pieces;
      for_parts<T>(dst, k, first, last, [&](const Part& part) {
        const RowsInside rows(part.row * o.stride[0] - o.padding[0], k, src.h);
        simd::depthwise_loops<T>().gradient(from + src.at(part.image, rows.first) + part.channel,
                                            diff_dst + dst.at(part.image, part.row) + part.channel,
                                            sums + (piece * taps + rows.skipped * k) * c + part.channel,
                                            row_of(part, rows, src, dst, k, o));
      });
    }
  });
  simd::loops<float>().column_sum(sums + taps * c, pieces - 1, taps * c, sums);
  float* to = a.weights.data<float>();
  for (int64_t i = 0; i < c; ++i)
    for (int64_t tap = 0; tap < taps; ++tap) *to++ = sums[tap * c + i];
}

template <class T>
void run(ConvOp op, ConvArrays& a, const Conv2dOptions& o) {
  switch (op) {
    case ConvOp::forward:
      return forward<T>(a, o);
    case ConvOp::backward_data:
      return backward_data<T>(a, o);
    case ConvOp::backward_weights:
      return backward_weights<T>(a, o);
  }
}

}  // namespace

bool is_suited(const ConvArrays& a, const Conv2dOptions& o) {
  const DType type = a.src.dtype();
  if (type != DType::f32 && type != DType::bf16) return false;
  const int64_t vector = type == DType::f32 ? simd::depthwise_vector<float> : simd::depthwise_vector<bf16>;
  const int64_t k = a.weights.dim(1), stride = o.stride[0];
  return o.groups >= vector && a.weights.dim(0) == o.groups && a.weights.dim(3) == 1 &&
         a.weights.dim(2) == k && (k == 3 || k == 5) && stride <= 2 && o.stride[1] == stride &&
         o.dilation == std::array<int64_t, 2>{1, 1};
}

void conv2d(ConvOp op, ConvArrays arrays, const Conv2dOptions& options) {
  arrays.src.dtype() == DType::bf16 ? run<bf16>(op, arrays, options) : run<float>(op, arrays, options);
}

}  // namespace stairgrad::kernels::depthwise
