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
  /// Position of the first channel of a pixel.
  int64_t at(int64_t image, int64_t row, int64_t column) const {
    return ((image * h + row) * w + column) * c;
  }
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
  int64_t height() const { return bottom - top; }
  int64_t width() const { return right - left; }
};

// simd::Loops::max_window for integers.
template <class T>
void max_window_of_codes(const T* x, T* y, int32_t* index, int64_t c, int64_t height, int64_t width,
                         int64_t row, int32_t first, int32_t step) {
  std::copy_n(x, c, y);
  std::fill_n(index, c, first);
  for (int64_t i = 0; i < height; ++i) {
    for (int64_t j = 0; j < width; ++j) {
      const T* pixel = x + i * row + j * c;
      const auto position = static_cast<int32_t>(first + i * step + j);
      for (int64_t k = 0; k < c; ++k) {
        const bool larger = pixel[k] > y[k];
        y[k] = larger ? pixel[k] : y[k];
        index[k] = larger ? position : index[k];
      }
    }
  }
}

double divisor(const Window& window, const Pool2dOptions& o) {
  return static_cast<double>(o.count_padding ? o.kernel[0] * o.kernel[1] : window.height() * window.width());
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

// The positions in the (h * w) planes of `images`, all checked.
const int32_t* checked_positions(const char* what, const Array& index, const Images& images) {
  const int32_t* positions = index.data<int32_t>();
  const auto [low, high] = std::minmax_element(positions, positions + index.size());
  check(index.size() == 0 || (*low >= 0 && *high < images.h * images.w), "[", what,
        "] index: got positions outside [0,", images.h * images.w, "), the (h * w) plane of the images");
  return positions;
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
      for (int64_t column = 0; column < dst.w; ++column) {
        const Window window(src, options, row, column);
        simd::loops<T>().average_window(from + src.at(n, window.top, window.left),
                                        to + dst.at(n, row, column), src.c, window.height(), window.width(),
                                        src.w * src.c, static_cast<R>(1 / divisor(window, options)));
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
      std::vector<R> sums(static_cast<size_t>(src.w * src.c));
      const int64_t above = row + options.padding[0] - options.kernel[0];
      const int64_t first = above < 0 ? 0 : above / options.stride[0] + 1;
      const int64_t last = std::min(dst.h - 1, (row + options.padding[0]) / options.stride[0]);
      for (int64_t i = first; i <= last; ++i) {
        for (int64_t column = 0; column < dst.w; ++column) {
          const Window window(src, options, i, column);
          const auto scale = static_cast<R>(1 / divisor(window, options));
          for (int64_t j = window.left; j < window.right; ++j)
            loops.add_scaled(from + dst.at(n, i, column), sums.data() + j * src.c, src.c, scale);
        }
      }
      loops.narrow(sums.data(), to + src.at(n, row, 0), src.w * src.c);
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
        const T* first = from + src.at(n, window.top, window.left);
        const int64_t at = dst.at(n, row, column);
        const auto position = static_cast<int32_t>(window.top * src.w + window.left);
        const auto max_window = [] {
          if constexpr (is_floating(dtype_of<T>))
            return simd::loops<T>().max_window;
          else
            return max_window_of_codes<T>;
        }();
        max_window(first, to + at, index + at, src.c, window.height(), window.width(), src.w * src.c,
                   position, static_cast<int32_t>(src.w));
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
  const int32_t* where = checked_positions("max_pool2d_scatter", index, src);
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
  const int32_t* where = checked_positions("max_pool2d_gather", index, src);
  dispatch_any(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* from = x.data<T>();
    T* to = y.data<T>();
    for_images(dst, [&](int64_t n) {
      const T* image = from + n * src.h * src.w * src.c;
      const int64_t pixels = dst.h * dst.w;
      for (int64_t p = n * pixels; p < (n + 1) * pixels; ++p)
        for (int64_t k = 0; k < src.c; ++k) to[p * src.c + k] = image[where[p * src.c + k] * src.c + k];
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
      simd::loops<T>().average_window(from + n * pixels * src.c, to + n * src.c, src.c, 1, pixels, 0,
                                      static_cast<R>(1 / static_cast<double>(pixels)));
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
      simd::loops<T>().affine(from + n * src.c, image, src.c, static_cast<R>(1 / static_cast<double>(pixels)),
                              0);
      for (int64_t p = 1; p < pixels; ++p) std::copy_n(image, src.c, image + p * src.c);
    });
  });
  return diff_x;
}

}  // namespace stairgrad::kernels
