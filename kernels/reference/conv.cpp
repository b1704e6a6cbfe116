#include "conv.h"

#include "../threads.h"

namespace stairgrad::kernels::reference {
namespace {

struct Sizes {
  Sizes(const ConvArrays& a, const Conv2dOptions& o)
      : n(a.src.dim(0)),
        h(a.src.dim(1)),
        w(a.src.dim(2)),
        ic(a.src.dim(3)),
        oh(a.dst.dim(1)),
        ow(a.dst.dim(2)),
        oc(a.dst.dim(3)),
        kh(a.weights.dim(1)),
        kw(a.weights.dim(2)),
        group_ic(a.weights.dim(3)),
        group_oc(oc / o.groups),
        stride(o.stride),
        dilation(o.dilation),
        top(o.padding[0]),
        left(o.padding[2]) {}

  int64_t src_row(int64_t oy, int64_t ky) const { return oy * stride[0] + ky * dilation[0] - top; }
  int64_t src_column(int64_t ox, int64_t kx) const { return ox * stride[1] + kx * dilation[1] - left; }

  int64_t n, h, w, ic, oh, ow, oc, kh, kw, group_ic, group_oc;
  std::array<int64_t, 2> stride, dilation;
  int64_t top, left;
};

bool inside(int64_t index, int64_t extent) { return index >= 0 && index < extent; }

/// Index of the dst element that reads src position `position` through tap `tap`; -1 if there is none.
int64_t reader(int64_t position, int64_t tap, int64_t stride, int64_t dilation, int64_t padding,
               int64_t extent) {
  const int64_t start = position + padding - tap * dilation;
  return start >= 0 && start % stride == 0 && start / stride < extent ? start / stride : -1;
}

template <class Sum, class Source, class Weight>
void forward(const Sizes& s, const Source* src, const Weight* weights, Sum* dst, Sum padding_value) {
  parallel_for(s.n * s.oh, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t n = row / s.oh, oy = row % s.oh;
      for (int64_t ox = 0; ox < s.ow; ++ox) {
        for (int64_t o = 0; o < s.oc; ++o) {
          const int64_t first_ic = o / s.group_oc * s.group_ic;
          Sum sum = 0;
          for (int64_t ky = 0; ky < s.kh; ++ky) {
            const int64_t y = s.src_row(oy, ky);
            for (int64_t kx = 0; kx < s.kw; ++kx) {
              const int64_t x = s.src_column(ox, kx);
              const Weight* tap = weights + ((o * s.kh + ky) * s.kw + kx) * s.group_ic;
              const bool real = inside(y, s.h) && inside(x, s.w);
              const Source* pixel = real ? src + ((n * s.h + y) * s.w + x) * s.ic + first_ic : nullptr;
              for (int64_t i = 0; i < s.group_ic; ++i)
                sum += (real ? static_cast<Sum>(pixel[i]) : padding_value) * static_cast<Sum>(tap[i]);
            }
          }
          dst[(row * s.ow + ox) * s.oc + o] = sum;
        }
      }
    }
  });
}

template <class T>
void backward_data(const Sizes& s, T* src, const T* weights, const T* dst) {
  parallel_for(s.n * s.h, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t n = row / s.h, y = row % s.h;
      for (int64_t x = 0; x < s.w; ++x) {
        T* pixel = src + (row * s.w + x) * s.ic;
        std::fill_n(pixel, s.ic, T{0});
        for (int64_t ky = 0; ky < s.kh; ++ky) {
          const int64_t oy = reader(y, ky, s.stride[0], s.dilation[0], s.top, s.oh);
          if (oy < 0) continue;
          for (int64_t kx = 0; kx < s.kw; ++kx) {
            const int64_t ox = reader(x, kx, s.stride[1], s.dilation[1], s.left, s.ow);
            if (ox < 0) continue;
            for (int64_t o = 0; o < s.oc; ++o) {
              const T gradient = dst[((n * s.oh + oy) * s.ow + ox) * s.oc + o];
              const T* tap = weights + ((o * s.kh + ky) * s.kw + kx) * s.group_ic;
              T* part = pixel + o / s.group_oc * s.group_ic;
              for (int64_t i = 0; i < s.group_ic; ++i) part[i] += gradient * tap[i];
            }
          }
        }
      }
    }
  });
}

template <class T>
void backward_weights(const Sizes& s, const T* src, T* weights, const T* dst) {
  parallel_for(s.oc * s.kh * s.kw, 1, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const int64_t o = index / (s.kh * s.kw), ky = index / s.kw % s.kh, kx = index % s.kw;
      T* tap = weights + index * s.group_ic;
      std::fill_n(tap, s.group_ic, T{0});
      for (int64_t n = 0; n < s.n; ++n) {
        for (int64_t oy = 0; oy < s.oh; ++oy) {
          const int64_t y = s.src_row(oy, ky);
          if (!inside(y, s.h)) continue;
          for (int64_t ox = 0; ox < s.ow; ++ox) {
            const int64_t x = s.src_column(ox, kx);
            if (!inside(x, s.w)) continue;
            const T gradient = dst[((n * s.oh + oy) * s.ow + ox) * s.oc + o];
            const T* pixel = src + ((n * s.h + y) * s.w + x) * s.ic + o / s.group_oc * s.group_ic;
            for (int64_t i = 0; i < s.group_ic; ++i) tap[i] += gradient * pixel[i];
          }
        }
      }
    }
  });
}

template <class T>
void run(ConvOp op, ConvArrays& a, const Sizes& s) {
  T *src = a.src.data<T>(), *weights = a.weights.data<T>(), *dst = a.dst.data<T>();
  switch (op) {
    case ConvOp::forward:
      return forward<T, T, T>(s, src, weights, dst, 0);
    case ConvOp::backward_data:
      return backward_data<T>(s, src, weights, dst);
    case ConvOp::backward_weights:
      return backward_weights<T>(s, src, weights, dst);
  }
}

}  // namespace

void conv2d(ConvOp op, ConvArrays arrays, const Conv2dOptions& options) {
  const Sizes sizes(arrays, options);
  arrays.src.dtype() == DType::f64 ? run<double>(op, arrays, sizes) : run<float>(op, arrays, sizes);
}

void conv2d_codes(ConvArrays arrays, const Conv2dOptions& options, int padding_code) {
  forward<int32_t, uint8_t, int8_t>(Sizes(arrays, options), arrays.src.data<uint8_t>(),
                                    arrays.weights.data<int8_t>(), arrays.dst.data<int32_t>(), padding_code);
}

}  // namespace stairgrad::kernels::reference
