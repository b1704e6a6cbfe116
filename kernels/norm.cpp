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

// gamma / sqrt(var + eps).
template <class R>
std::vector<R> scale_of(const Array& gamma, const Array& var, double eps) {
  std::vector<R> scale(static_cast<size_t>(gamma.size()));
  for (size_t j = 0; j < scale.size(); ++j)
    scale[j] = static_cast<R>(static_cast<double>(gamma.data<R>()[j]) /
                              std::sqrt(static_cast<double>(var.data<R>()[j]) + eps));
  return scale;
}

template <class T>
BatchStatistics statistics(const Array& x) {
  using R = simd::Real<T>;
  const Rows rows = rows_of(x);
  const auto c = static_cast<size_t>(rows.channels);
  const T* from = x.data<T>();

  // Moments of each chunk about the mean of its first rows: exact enough wherever the mean is, in one pass.
  Array partial({rows.chunks(), 2, rows.channels}, DType::f64);
  double* moments = partial.data<double>();
  parallel_for(rows.chunks(), rows.chunks_per_piece(), [&](int64_t begin, int64_t end) {
    const simd::Loops<T>& loops = simd::loops<T>();
    const auto wide = static_cast<size_t>(rows.width());
    std::vector<R> head(c), sum(wide), squares(wide);
    for (int64_t k = begin; k < end; ++k) {
      const int64_t first = k * rows.chunk(), last = std::min(rows.count, first + rows.chunk());
      const int64_t heads = std::min<int64_t>(16, last - first);
      std::fill(head.begin(), head.end(), R{0});
      loops.column_sum(from + first * rows.channels, heads, rows.channels, head.data());
      for (R& pivot : head) pivot /= static_cast<R>(heads);
      const std::vector<R> pivots = rows.repeated(head.data());
      std::fill(sum.begin(), sum.end(), R{0});
      std::fill(squares.begin(), squares.end(), R{0});
      rows.wide(first, last, [&](int64_t at, int64_t count, int64_t width) {
        loops.moments(from + at, count, width, pivots.data(), sum.data(), squares.data());
      });
      double* mean = moments + static_cast<size_t>(k) * 2 * c;
      double* deviation = mean + c;
      fold_sums(rows, sum, mean);
      fold_sums(rows, squares, deviation);
      const auto n = static_cast<double>(last - first);
      for (size_t j = 0; j < c; ++j) {
        const double shift = mean[j] / n;
        mean[j] = static_cast<double>(head[j]) + shift;
        deviation[j] = std::max(0.0, deviation[j] - n * shift * shift);
      }
    }
  });

  // The mean of the chunks' means, and their deviations moved to it.
  std::vector<double> mean(c), var(c);
  for (int64_t k = 0; k < rows.chunks(); ++k) {
    const double *means = moments + static_cast<size_t>(k) * 2 * c, weight = rows.weight(k);
    for (size_t j = 0; j < c; ++j) mean[j] += weight * means[j];
  }
  const double scale = 1 / static_cast<double>(rows.count);
  for (int64_t k = 0; k < rows.chunks(); ++k) {
    const double *means = moments + static_cast<size_t>(k) * 2 * c, *deviations = means + c;
    const double weight = rows.weight(k);
    for (size_t j = 0; j < c; ++j) {
      const double shift = means[j] - mean[j];
      var[j] += scale * deviations[j] + weight * shift * shift;
    }
  }
  BatchStatistics result{Array(Shape{rows.channels}, dtype_of<R>), Array(Shape{rows.channels}, dtype_of<R>)};
  std::copy(mean.begin(), mean.end(), result.mean.data<R>());
  std::copy(var.begin(), var.end(), result.var.data<R>());
  return result;
}

// The first pass of batch_norm_backward: per channel the sums of g and, behind them, of g * (x - mean), where
// g is diff_y behind the ReLU. g itself goes into diff_skip unless that is null.
template <class T>
Array gradient_sums(const Rows& rows, const T* x, const T* diff_y, const simd::ReluMask<T>& relu,
                    T* diff_skip, const simd::Real<T>* means) {
  const auto c = static_cast<size_t>(rows.channels);
  Array partial({rows.chunks(), 2 * rows.channels}, DType::f64);
  double* sums = partial.data<double>();
  parallel_for(rows.chunks(), rows.chunks_per_piece(), [&](int64_t begin, int64_t end) {
    const auto wide = static_cast<size_t>(rows.width());
    std::vector<simd::Real<T>> sum(wide), products(wide);
    for (int64_t k = begin; k < end; ++k) {
      const int64_t first = k * rows.chunk(), last = std::min(rows.count, first + rows.chunk());
      std::fill(sum.begin(), sum.end(), simd::Real<T>{0});
      std::fill(products.begin(), products.end(), simd::Real<T>{0});
      rows.wide(first, last, [&](int64_t at, int64_t count, int64_t width) {
        simd::loops<T>().norm_gradient_sums(x + at, diff_y + at, relu.at(at),
                                            diff_skip ? diff_skip + at : nullptr, count, width, means,
                                            sum.data(), products.data());
      });
      fold_sums(rows, sum, sums + static_cast<size_t>(k) * 2 * c);
      fold_sums(rows, products, sums + (static_cast<size_t>(k) * 2 + 1) * c);
    }
  });
  for (int64_t k = 1; k < rows.chunks(); ++k)
    for (size_t j = 0; j < 2 * c; ++j) sums[j] += sums[static_cast<size_t>(k) * 2 * c + j];
  return partial.slice(0, 1);
}

}  // namespace

BatchStatistics batch_statistics(const Array& x) {
  check(x.rank() >= 1 && x.size() > 0, "[batch_statistics] got the shape ", x.shape(),
        ", expected at least one element for each channel");
  return dispatch_floating(x.dtype(), [&](auto zero) { return statistics<decltype(zero)>(x); });
}

Array batch_norm(const Array& x, const Array& mean, const Array& var, const Array& gamma, const Array& beta,
                 double eps, const Array& skip, bool relu, double high) {
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
    const std::vector<R> means = rows.repeated(mean.data<R>()),
                         scales = rows.repeated(scale_of<R>(gamma, var, eps).data()),
                         shifts = rows.repeated(beta.data<R>());
    const T* from = x.data<T>();
    const T* add = skip.has_value() ? skip.data<T>() : nullptr;
    T* to = y.data<T>();
    parallel_for(rows.count, rows.chunk() * rows.chunks_per_piece(), [&](int64_t begin, int64_t end) {
      rows.wide(begin, end, [&](int64_t at, int64_t count, int64_t width) {
        simd::loops<T>().normalise(from + at, add ? add + at : nullptr, to + at, count, width, means.data(),
                                   scales.data(), shifts.data(), relu, static_cast<R>(high));
      });
    });
  });
  return y;
}

BatchNormGradients batch_norm_backward(const Array& x, const Array& mean, const Array& var,
                                       const Array& gamma, double eps, const Array& diff_y, const Array& y,
                                       bool relu, bool skip_needed, const Array& beta, double high) {
  check(x.rank() >= 1 && x.size() > 0, "[batch_norm_backward] got the shape ", x.shape(),
        ", expected at least one element for each channel");
  check_channels("batch_norm_backward", "mean", mean, x);
  check_channels("batch_norm_backward", "var", var, x);
  check_channels("batch_norm_backward", "gamma", gamma, x);
  check_like("batch_norm_backward", "diff_y", diff_y, x);
  const bool find_mask = relu && !y.has_value() && beta.has_value();
  if (find_mask)
    check_channels("batch_norm_backward", "beta", beta, x);
  else if (relu)
    check_like("batch_norm_backward", "y", y, x);
  return dispatch_floating(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using R = simd::Real<T>;
    const Rows rows = rows_of(x);
    const auto c = static_cast<size_t>(rows.channels);
    const T *px = x.data<T>(), *pg = diff_y.data<T>();
    const std::vector<R> means = rows.repeated(mean.data<R>()),
                         scales = rows.repeated(scale_of<R>(gamma, var, eps).data());
    std::vector<R> shifts;
    simd::ReluMask<T> mask;
    mask.high = static_cast<R>(high);
    if (find_mask) {
      shifts = rows.repeated(beta.data<R>());
      mask.scale = scales.data();
      mask.shift = shifts.data();
    } else if (relu) {
      mask.y = y.data<T>();
    }

    BatchNormGradients result{Array(x.shape(), x.dtype()), Array(Shape{rows.channels}, dtype_of<R>),
                              Array(Shape{rows.channels}, dtype_of<R>), Array()};
    if (skip_needed) result.skip = relu ? Array(x.shape(), x.dtype()) : diff_y;
    T* diff_skip = skip_needed && relu ? result.skip.template data<T>() : nullptr;

    const Array both = gradient_sums(rows, px, pg, mask, diff_skip, means.data());
    const double* sums = both.data<double>();

    // With d = x - mean: dx = gamma / std * (g - E[g] - d * E[g d] / var).
    std::vector<R> offset(c), slope(c);
    for (size_t j = 0; j < c; ++j) {
      const double inverse = 1 / std::sqrt(static_cast<double>(var.data<R>()[j]) + eps);
      const auto n = static_cast<double>(rows.count);
      result.gamma.template data<R>()[j] = static_cast<R>(sums[c + j] * inverse);
      result.beta.template data<R>()[j] = static_cast<R>(sums[j]);
      offset[j] = static_cast<R>(sums[j] / n);
      slope[j] = static_cast<R>(sums[c + j] / n * inverse * inverse);
    }

    // The second pass reads g if it was kept.
    const std::vector<R> offsets = rows.repeated(offset.data()), slopes = rows.repeated(slope.data());
    T* diff_x = result.x.template data<T>();
    if (diff_skip) pg = diff_skip, mask = {};
    parallel_for(rows.count, rows.chunk() * rows.chunks_per_piece(), [&](int64_t begin, int64_t end) {
      rows.wide(begin, end, [&](int64_t at, int64_t count, int64_t width) {
        simd::loops<T>().norm_gradient(px + at, pg + at, mask.at(at), diff_x + at, count, width, means.data(),
                                       offsets.data(), slopes.data(), scales.data());
      });
    });
    return result;
  });
}

}  // namespace stairgrad::kernels
