#include "pool.h"

#include <algorithm>
#include <vector>

#include "simd/simd.h"
#include "threads.h"

namespace stairgrad::kernels {
namespace {

constexpr int64_t grain = 1 << 14;  // elements of a piece of parallel work

// Row-major images (n, h, w, c).
struct Images {
  int64_t n, h, w, c;
  explicit Images(const Shape& s) : n(s[0]), h(s[1]), w(s[2]), c(s[3]) {}
};

// The part of one window that lies inside the image.
struct Window {
  int64_t top, bottom, left, right;
  Window(const Images& src, const Pool2dOptions& o, int64_t row, int64_t column)
      : top(row * o.stride[0] - o.padding[0]),
        bottom(std::min(top + o.kernel[0], src.h)),
        left(column * o.stride[1] - o.padding[1]),
        right(std::min(left + o.kernel[1], src.w)) {
    top = std::max<int64_t>(top, 0);
    left = std::max<int64_t>(left, 0);
  }
  int64_t area() const { return (bottom - top) * (right - left); }
};

double divisor(const Window& window, const Pool2dOptions& o) {
  return static_cast<double>(o.count_padding ? o.kernel[0] * o.kernel[1] : window.area());
}

// Calls body(image, row) for every row of the images, in parallel.
template <class Body>
void for_image_rows(const Images& images, const Body& body) {
  const int64_t row_size = std::max<int64_t>(1, images.w * images.c);
  parallel_for(images.n * images.h, std::max<int64_t>(1, grain / row_size), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i / images.h, i % images.h);
  });
}
template <class Body>
void for_images(const Images& images, const Body& body) {
  const int64_t size = std::max<int64_t>(1, images.h * images.w * images.c);
  parallel_for(images.n, std::max<int64_t>(1, grain / size), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) body(n);
  });
}

void check_images(const char* what, const Shape& shape) {
  check(shape.rank() == 4, "[", what, "] got the shape ", shape, ", expected images (n, h, w, c)");
}
void check_pooled(const char* what, const Shape& got, const Shape& src_shape) {
  check_images(what, got);
  check_images(what, src_shape);
  check(got[0] == src_shape[0] && got[3] == src_shape[3], "[", what, "] got the shape ", got,
        ", expected n and c of the images ", src_shape);
}

}  // namespace

Shape pool2d_shape(const Shape& src, const Pool2dOptions& o) {
  check_images("pool2d", src);
  Shape dst = src;
  for (int i = 0; i < 2; ++i) {
    const auto k = static_cast<size_t>(i);
    check(o.kernel[k] >= 1 && o.stride[k] >= 1 && o.padding[k] >= 0 && o.padding[k] * 2 <= o.kernel[k],
          "[pool2d] got kernel ", o.kernel[k], ", stride ", o.stride[k], " and padding ", o.padding[k],
          ", expected positive kernel and stride and at most half the kernel as padding");
    const int64_t room = src[i + 1] + 2 * o.padding[k] - o.kernel[k];
    check(room >= 0, "[pool2d] got the images ", src, ", which are smaller than the kernel (", o.kernel[0],
          ",", o.kernel[1], ")");
    dst[i + 1] = room / o.stride[k] + 1;
  }
  return dst;
}

Array avg_pool2d(const Array& x, const Pool2dOptions& options) {
  Array y(pool2d_shape(x.shape(), options), x.dtype());
  const Images src(x.shape()), dst(y.shape());
  dispatch_floating(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using R = simd::Real<T>;
    const T* from = x.data<T>();
    T* to = y.data<T>();
    for_image_rows(dst, [&](int64_t n, int64_t row) {
      const simd::Loops<T>& loops = simd::loops<T>();
      std::vector<R> sum(static_cast<size_t>(src.c));
      for (int64_t column = 0; column < dst.w; ++column) {
        const Window window(src, options, row, column);
        std::fill(sum.begin(), sum.end(), R{0});
        for (int64_t i = window.top; i < window.bottom; ++i)
          loops.column_sum(from + ((n * src.h + i) * src.w + window.left) * src.c, window.right - window.left,
                           src.c, sum.data());
        simd::loops<R>().affine(sum.data(), sum.data(), src.c,
                                static_cast<R>(1 / divisor(window, options)), 0);
        loops.narrow(sum.data(), to + ((n * dst.h + row) * dst.w + column) * src.c, src.c);
      }
    });
  });
  return y;
}

Array avg_pool2d_backward(const Array& diff_y, const Shape& src_shape, const Pool2dOptions& options) {
  check(diff_y.shape() == pool2d_shape(src_shape, options), "[avg_pool2d_backward] got the shape ",
        diff_y.shape(), ", expected ", pool2d_shape(src_shape, options), " because src is ", src_shape);
  Array diff_x(src_shape, diff_y.dtype());
  const Images src(src_shape), dst(diff_y.shape());
  dispatch_floating(diff_y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using R = simd::Real<T>;
    const T* from = diff_y.data<T>();
    T* to = diff_x.data<T>();
    // Each row of src gathers from the windows that cover it, so that rows are independent.
    for_image_rows(src, [&](int64_t n, int64_t row) {
      const simd::Loops<T>& loops = simd::loops<T>();
      std::vector<R> sums(static_cast<size_t>(src.w * src.c)), part(static_cast<size_t>(src.c));
      const int64_t above = row + options.padding[0] - options.kernel[0];
      const int64_t first = above < 0 ? 0 : above / options.stride[0] + 1;
      const int64_t last = std::min(dst.h - 1, (row + options.padding[0]) / options.stride[0]);
      for (int64_t i = first; i <= last; ++i) {
        for (int64_t column = 0; column < dst.w; ++column) {
          const Window window(src, options, i, column);
          loops.widen(from + ((n * dst.h + i) * dst.w + column) * src.c, part.data(), src.c);
          simd::loops<R>().affine(part.data(), part.data(), src.c,
                                  static_cast<R>(1 / divisor(window, options)), 0);
          for (int64_t j = window.left; j < window.right; ++j)
            simd::loops<R>().column_sum(part.data(), 1, src.c, sums.data() + j * src.c);
        }
      }
      loops.narrow(sums.data(), to + (n * src.h + row) * src.w * src.c, src.w * src.c);
    });
  });
  return diff_x;
}

MaxPool max_pool2d(const Array& x, const Pool2dOptions& options) {
  const Shape shape = pool2d_shape(x.shape(), options);
  MaxPool result{Array(shape, x.dtype()), Array(shape, DType::s32)};
  const Images src(x.shape()), dst(shape);
  int32_t* index = result.index.data<int32_t>();
  dispatch_any(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* from = x.data<T>();
    T* to = result.y.data<T>();
    for_image_rows(dst, [&](int64_t n, int64_t row) {
      for (int64_t column = 0; column < dst.w; ++column) {
        const Window window(src, options, row, column);
        const int64_t at = ((n * dst.h + row) * dst.w + column) * src.c;
        T* best = to + at;
        int32_t* where = index + at;
        const int64_t start = window.top * src.w + window.left;
        std::copy_n(from + (n * src.h * src.w + start) * src.c, src.c, best);
        std::fill_n(where, src.c, static_cast<int32_t>(start));
        for (int64_t i = window.top; i < window.bottom; ++i) {
          for (int64_t j = window.left; j < window.right; ++j) {
            const T* candidate = from + ((n * src.h + i) * src.w + j) * src.c;
            const auto position = static_cast<int32_t>(i * src.w + j);
            for (int64_t k = 0; k < src.c; ++k) {
              const bool larger = candidate[k] > best[k] || candidate[k] != candidate[k];
              best[k] = larger ? candidate[k] : best[k];
              where[k] = larger ? position : where[k];
            }
          }
        }
      }
    });
  });
  return result;
}

Array max_pool2d_scatter(const Array& g, const Array& index, const Shape& src_shape) {
  check_pooled("max_pool2d_scatter", g.shape(), src_shape);
  check(index.shape() == g.shape(), "[max_pool2d_scatter] index: got ", index.shape(), ", expected ",
        g.shape(), " because that is g");
  const Images src(src_shape), dst(g.shape());
  Array out = Array::zeros(src_shape, g.dtype());
  const int32_t* where = index.data<int32_t>();
  dispatch_floating(g.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using R = simd::Real<T>;
    const T* from = g.data<T>();
    T* to = out.data<T>();
    for_images(src, [&](int64_t n) {
      T* image = to + n * src.h * src.w * src.c;
      const int64_t pixels = dst.h * dst.w;
      for (int64_t p = n * pixels; p < (n + 1) * pixels; ++p)
        for (int64_t k = 0; k < src.c; ++k) {
          T& sum = image[where[p * src.c + k] * src.c + k];
          sum = static_cast<T>(static_cast<R>(sum) + static_cast<R>(from[p * src.c + k]));
        }
    });
  });
  return out;
}

Array max_pool2d_gather(const Array& x, const Array& index) {
  check_pooled("max_pool2d_gather", index.shape(), x.shape());
  const Images src(x.shape()), dst(index.shape());
  Array y(index.shape(), x.dtype());
  const int32_t* where = index.data<int32_t>();
  dispatch_any(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* from = x.data<T>();
    T* to = y.data<T>();
    for_images(dst, [&](int64_t n) {
      const T* image = from + n * src.h * src.w * src.c;
      const int64_t pixels = dst.h * dst.w;
      for (int64_t p = n * pixels; p < (n + 1) * pixels; ++p)
        for (int64_t k = 0; k < src.c; ++k)
          to[p * src.c + k] = image[where[p * src.c + k] * src.c + k];
    });
  });
  return y;
}

Array global_avg_pool(const Array& x) {
  check_images("global_avg_pool", x.shape());
  const Images src(x.shape());
  check(src.h * src.w > 0, "[global_avg_pool] got the shape ", x.shape(), ", expected at least one pixel");
  Array y({src.n, 1, 1, src.c}, x.dtype());
  dispatch_floating(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using R = simd::Real<T>;
    const T* from = x.data<T>();
    T* to = y.data<T>();
    const int64_t pixels = src.h * src.w;
    for_images(src, [&](int64_t n) {
      std::vector<R> sum(static_cast<size_t>(src.c));
      simd::loops<T>().column_sum(from + n * pixels * src.c, pixels, src.c, sum.data());
      simd::loops<R>().affine(sum.data(), sum.data(), src.c,
                              static_cast<R>(1 / static_cast<double>(pixels)), 0);
      simd::loops<T>().narrow(sum.data(), to + n * src.c, src.c);
    });
  });
  return y;
}

Array global_avg_pool_backward(const Array& diff_y, const Shape& src_shape) {
  check_images("global_avg_pool_backward", src_shape);
  const Images src(src_shape);
  check(diff_y.shape() == Shape{src.n, 1, 1, src.c}, "[global_avg_pool_backward] got the shape ",
        diff_y.shape(), ", expected ", Shape{src.n, 1, 1, src.c}, " because src is ", src_shape);
  Array diff_x(src_shape, diff_y.dtype());
  dispatch_floating(diff_y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using R = simd::Real<T>;
    const T* from = diff_y.data<T>();
    T* to = diff_x.data<T>();
    const int64_t pixels = src.h * src.w;
    for_images(src, [&](int64_t n) {
      T* image = to + n * pixels * src.c;
      if (pixels == 0) return;
      simd::loops<T>().affine(from + n * src.c, image, src.c,
                              static_cast<R>(1 / static_cast<double>(pixels)), 0);
      for (int64_t p = 1; p < pixels; ++p) std::copy_n(image, src.c, image + p * src.c);
    });
  });
  return diff_x;
}

}  // namespace stairgrad::kernels
