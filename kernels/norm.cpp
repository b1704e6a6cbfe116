#include "norm.h"

#include <cmath>

#include "rows.h"
#include "simd/simd.h"
#include "threads.h"

namespace stairgrad::kernels {
namespace {

Rows rows_of(const Array& x) {
  const int64_t channels = x.shape().back();
  return {channels ? x.size() / channels : 0, channels};
}

template <class R>
void fold_sums(const Rows& rows, const std::vector<R>& wide, double* sums) {
  rows.fold(wide, rows.repeat, sums, [](double a, double b) { return a + b; });
}

DType statistics_type(DType x) { return x == DType::f64 ? DType::f64 : DType::f32; }

void check_channels(const char* what, const char* name, const Array& array, const Array& x) {
  check(array.shape() == Shape{x.shape().back()} && array.dtype() == statistics_type(x.dtype()), "[", what,
        "] ", name, ": got ", name_of(array.dtype()), array.shape(), ", expected ",
        name_of(statistics_type(x.dtype())), "(", x.shape().back(), ") because x is ", name_of(x.dtype()),
        x.shape());
}
void check_like(const char* what, const char* name, const Array& array, const Array& x) {
  check(array.shape() == x.shape() && array.dtype() == x.dtype(), "[", what, "] ", name, ": got ",
        name_of(array.dtype()), array.shape(), ", expected ", name_of(x.dtype()), x.shape(),
        " because that is x");
}

template <class T>
BatchStatistics statistics(const Array& x) {
  using R = simd::Real<T>;
  const Rows rows = rows_of(x);
  const auto c = static_cast<size_t>(rows.channels);
  const T* from = x.data<T>();

  // Moments of each chunk about its first row: exact enough for any mean, and one pass.
  std::vector<double> moments(static_cast<size_t>(rows.chunks()) * 2 * c);
  parallel_for(rows.chunks(), rows.chunks_per_piece(), [&](int64_t begin, int64_t end) {
    const simd::Loops<T>& loops = simd::loops<T>();
    const auto wide = static_cast<size_t>(rows.width());
    std::vector<R> pivot(wide), sum(wide), squares(wide);
    for (int64_t k = begin; k < end; ++k) {
      const int64_t first = k * rows.chunk(), last = std::min(rows.count, first + rows.chunk());
      for (int64_t r = 0; r < rows.repeat; ++r)
        loops.widen(from + first * rows.channels, pivot.data() + r * rows.channels, rows.channels);
      std::fill(sum.begin(), sum.end(), R{0});
      std::fill(squares.begin(), squares.end(), R{0});
      rows.wide(first, last, [&](int64_t at, int64_t count, int64_t width) {
        loops.moments(from + at, count, width, pivot.data(), sum.data(), squares.data());
      });
      double* mean = moments.data() + static_cast<size_t>(k) * 2 * c;
      double* deviation = mean + c;
      fold_sums(rows, sum, mean);
      fold_sums(rows, squares, deviation);
      const auto n = static_cast<double>(last - first);
      for (size_t j = 0; j < c; ++j) {
        const double shift = mean[j] / n;
        mean[j] = static_cast<double>(pivot[j]) + shift;
        deviation[j] = std::max(0.0, deviation[j] - n * shift * shift);
      }
    }
  });

  // Chan, Golub and LeVeque's combination of two sets' means and squared deviations.
  BatchStatistics result{Array(Shape{rows.channels}, dtype_of<R>), Array(Shape{rows.channels}, dtype_of<R>)};
  for (size_t j = 0; j < c; ++j) {
    double n = 0, mean = 0, deviation = 0;
    for (int64_t k = 0; k < rows.chunks(); ++k) {
      const double* chunk = moments.data() + static_cast<size_t>(k) * 2 * c;
      const auto m = static_cast<double>(std::min(rows.chunk(), rows.count - k * rows.chunk()));
      const double delta = chunk[j] - mean;
      n += m;
      mean += delta * (m / n);
      deviation += chunk[c + j] + delta * delta * (m / n) * (n - m);
    }
    result.mean.data<R>()[j] = static_cast<R>(mean);
    result.var.data<R>()[j] = static_cast<R>(deviation / n);
  }
  return result;
}

}  // namespace

BatchStatistics batch_statistics(const Array& x) {
  check(x.rank() >= 1 && x.size() > 0, "[batch_statistics] got the shape ", x.shape(),
        ", expected at least one element for each channel");
  return dispatch_floating(x.dtype(), [&](auto zero) { return statistics<decltype(zero)>(x); });
}

Array batch_norm(const Array& x, const Array& mean, const Array& var, const Array& gamma, const Array& beta,
                 double eps, const Array& skip, bool relu) {
  check(x.rank() >= 1, "[batch_norm] got a scalar, expected (..., c)");
  check_channels("batch_norm", "mean", mean, x);
  check_channels("batch_norm", "var", var, x);
  check_channels("batch_norm", "gamma", gamma, x);
  check_channels("batch_norm", "beta", beta, x);
  if (skip.has_value()) check_like("batch_norm", "skip", skip, x);
  Array y(x.shape(), x.dtype());
  dispatch_floating(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using R = simd::Real<T>;
    const Rows rows = rows_of(x);
    std::vector<R> scale(static_cast<size_t>(rows.channels));
    for (size_t j = 0; j < scale.size(); ++j)
      scale[j] = static_cast<R>(static_cast<double>(gamma.data<R>()[j]) /
                                std::sqrt(static_cast<double>(var.data<R>()[j]) + eps));
    const std::vector<R> means = rows.repeated(mean.data<R>()), scales = rows.repeated(scale.data()),
                         shifts = rows.repeated(beta.data<R>());
    const T* from = x.data<T>();
    const T* add = skip.has_value() ? skip.data<T>() : nullptr;
    T* to = y.data<T>();
    parallel_for(rows.count, rows.chunk() * rows.chunks_per_piece(), [&](int64_t begin, int64_t end) {
      rows.wide(begin, end, [&](int64_t at, int64_t count, int64_t width) {
        simd::loops<T>().normalise(from + at, add ? add + at : nullptr, to + at, count, width, means.data(),
                                   scales.data(), shifts.data(), relu);
      });
    });
  });
  return y;
}

BatchNormGradients batch_norm_backward(const Array& x, const Array& mean, const Array& var,
                                       const Array& gamma, double eps, const Array& diff_y, const Array& y,
                                       bool relu, bool skip_needed) {
  check(x.rank() >= 1 && x.size() > 0, "[batch_norm_backward] got the shape ", x.shape(),
        ", expected at least one element for each channel");
  check_channels("batch_norm_backward", "mean", mean, x);
  check_channels("batch_norm_backward", "var", var, x);
  check_channels("batch_norm_backward", "gamma", gamma, x);
  check_like("batch_norm_backward", "diff_y", diff_y, x);
  if (relu) check_like("batch_norm_backward", "y", y, x);
  return dispatch_floating(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using R = simd::Real<T>;
    const Rows rows = rows_of(x);
    const auto c = static_cast<size_t>(rows.channels);
    const T *px = x.data<T>(), *pg = diff_y.data<T>(), *py = relu ? y.data<T>() : nullptr;
    const std::vector<R> means = rows.repeated(mean.data<R>());

    BatchNormGradients result{Array(x.shape(), x.dtype()), Array(Shape{rows.channels}, dtype_of<R>),
                              Array(Shape{rows.channels}, dtype_of<R>), Array()};
    if (skip_needed) result.skip = relu ? Array(x.shape(), x.dtype()) : diff_y;
    T* diff_skip = skip_needed && relu ? result.skip.template data<T>() : nullptr;

    // First pass: g and the sums of g and of g * (x - mean).
    std::vector<double> sums(static_cast<size_t>(rows.chunks()) * 2 * c);
    parallel_for(rows.chunks(), rows.chunks_per_piece(), [&](int64_t begin, int64_t end) {
      const auto wide = static_cast<size_t>(rows.width());
      std::vector<R> sum(wide), products(wide);
      for (int64_t k = begin; k < end; ++k) {
        const int64_t first = k * rows.chunk(), last = std::min(rows.count, first + rows.chunk());
        std::fill(sum.begin(), sum.end(), R{0});
        std::fill(products.begin(), products.end(), R{0});
        rows.wide(first, last, [&](int64_t at, int64_t count, int64_t width) {
          simd::loops<T>().norm_gradient_sums(px + at, pg + at, py ? py + at : nullptr,
                                              diff_skip ? diff_skip + at : nullptr, count, width, means.data(),
                                              sum.data(), products.data());
        });
        fold_sums(rows, sum, sums.data() + static_cast<size_t>(k) * 2 * c);
        fold_sums(rows, products, sums.data() + (static_cast<size_t>(k) * 2 + 1) * c);
      }
    });
    for (size_t i = 2 * c; i < sums.size(); ++i) sums[i % (2 * c)] += sums[i];

    // With d = x - mean: dx = gamma / std * (g - E[g] - d * E[g d] / var).
    std::vector<R> offset(c), slope(c), scale(c);
    for (size_t j = 0; j < c; ++j) {
      const double inverse = 1 / std::sqrt(static_cast<double>(var.data<R>()[j]) + eps);
      const auto n = static_cast<double>(rows.count);
      result.gamma.template data<R>()[j] = static_cast<R>(sums[c + j] * inverse);
      result.beta.template data<R>()[j] = static_cast<R>(sums[j]);
      offset[j] = static_cast<R>(sums[j] / n);
      slope[j] = static_cast<R>(sums[c + j] / n * inverse * inverse);
      scale[j] = static_cast<R>(static_cast<double>(gamma.data<R>()[j]) * inverse);
    }

    // Second pass: the gradient of x, from g if that was kept.
    const std::vector<R> offsets = rows.repeated(offset.data()), slopes = rows.repeated(slope.data()),
                         scales = rows.repeated(scale.data());
    T* diff_x = result.x.template data<T>();
    if (diff_skip) pg = diff_skip, py = nullptr;
    parallel_for(rows.count, rows.chunk() * rows.chunks_per_piece(), [&](int64_t begin, int64_t end) {
      rows.wide(begin, end, [&](int64_t at, int64_t count, int64_t width) {
        simd::loops<T>().norm_gradient(px + at, pg + at, py ? py + at : nullptr, diff_x + at, count, width,
                                       means.data(), offsets.data(), slopes.data(), scales.data());
      });
    });
    return result;
  });
}

}  // namespace stairgrad::kernels
