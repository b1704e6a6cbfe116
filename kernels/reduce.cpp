#include "reduce.h"

#include <algorithm>
#include <cmath>

#include "rows.h"
#include "simd/simd.h"
#include "threads.h"

namespace stairgrad::kernels {
namespace {

constexpr int64_t grain = 1 << 15;  // elements of a piece of parallel work

template <class T>
T rounded(double value) {
  if constexpr (std::is_same_v<T, bf16>)
    return bf16(static_cast<float>(value));
  else
    return static_cast<T>(value);
}

double combined(Reduction kind, double a, double b) {
  if (kind == Reduction::sum) return a + b;
  if (std::isnan(a) || std::isnan(b)) return a + b;
  return kind == Reduction::max ? std::max(a, b) : std::min(a, b);
}

// Reduces `count` rows, into one value for each channel.
template <class T>
void reduce_chunk(Reduction kind, const T* x, const Rows& rows, int64_t count, double* result) {
  const simd::Loops<T>& loops = simd::loops<T>();
  if (rows.channels == 1) {
    result[0] = kind == Reduction::sum
                    ? loops.sum(x, count)
                    : static_cast<double>((kind == Reduction::max ? loops.max : loops.min)(x, count));
    return;
  }
  const int64_t copies = std::min(rows.repeat, count);
  std::vector<simd::Real<T>> wide(static_cast<size_t>(copies * rows.channels));
  const auto fold_columns = kind == Reduction::sum   ? loops.column_sum
                            : kind == Reduction::max ? loops.column_max
                                                     : loops.column_min;
  loops.widen(x, wide.data(), copies * rows.channels);
  rows.wide(copies, count,
            [&](int64_t at, int64_t rows, int64_t width) { fold_columns(x + at, rows, width, wide.data()); });
  rows.fold(wide, copies, result, [kind](double a, double b) { return combined(kind, a, b); });
}

// Reduces the middle axis of x seen as (outer, rows.count, rows.channels).
template <class T>
Array reduce_middle(Reduction kind, const T* x, int64_t outer, const Rows& rows) {
  const int64_t width = rows.channels, chunks = std::max<int64_t>(1, rows.chunks());
  Array y({outer, width}, dtype_of<T>);
  if (rows.count == 0) return Array::zeros(y.shape(), y.dtype());
  Array partial({outer, chunks, width}, DType::f64);
  double* sums = partial.data<double>();
  const int64_t chunk_size = std::min(rows.count, rows.chunk()) * width;
  parallel_for(outer * chunks, std::max<int64_t>(1, grain / chunk_size), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % chunks * rows.chunk();
      reduce_chunk(kind, x + (i / chunks * rows.count + first) * width, rows,
                   std::min(rows.chunk(), rows.count - first), sums + i * width);
    }
  });
  T* out = y.data<T>();
  for (int64_t o = 0; o < outer; ++o) {
    double* first = sums + o * chunks * width;
    for (int64_t k = 1; k < chunks; ++k)
      for (int64_t j = 0; j < width; ++j) first[j] = combined(kind, first[j], first[k * width + j]);
    for (int64_t j = 0; j < width; ++j) out[o * width + j] = rounded<T>(first[j]);
  }
  return y;
}

// The last axis: how many rows there are along it, and how long they are.
struct Last {
  int64_t count, length;
};
Last last_axis(const char* what, const Array& x) {
  check(x.rank() >= 1 && x.shape().back() >= 1, "[", what, "] got the shape ", x.shape(),
        ", expected a last axis with at least one element");
  return {x.size() / x.shape().back(), x.shape().back()};
}

// y = exp(x - max) and its sum, per row; finish(sum, max, x, y, n) makes the result of it.
template <class Finish>
Array softmax_rows(const char* what, const Array& x, const Finish& finish) {
  const Last rows = last_axis(what, x);
  Array y(x.shape(), x.dtype());
  dispatch_floating(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* from = x.data<T>();
    T* to = y.data<T>();
    parallel_for(rows.count, std::max<int64_t>(1, grain / 4 / rows.length), [&](int64_t begin, int64_t end) {
      const simd::Loops<T>& loops = simd::loops<T>();
      std::vector<simd::Real<T>> exps(static_cast<size_t>(rows.length));
      for (int64_t r = begin; r < end; ++r) {
        const T* row = from + r * rows.length;
        const simd::Real<T> max = loops.max(row, rows.length);
        const double sum = loops.exp_sum(row, max, exps.data(), rows.length);
        finish(loops, row, exps.data(), to + r * rows.length, rows.length, max, sum);
      }
    });
  });
  return y;
}

}  // namespace

Array reduce(Reduction kind, const Array& x, const Axes& axes, bool keep_axes) {
  const int rank = x.rank();
  std::vector<bool> reduced(static_cast<size_t>(rank), axes.empty());
  for (const int axis : axes) {
    check(axis >= -rank && axis < rank, "[reduce] got axis ", axis, " of an array of shape ", x.shape());
    reduced[static_cast<size_t>(axis < 0 ? axis + rank : axis)] = true;
  }
  Shape result, shape = x.shape();
  for (int i = 0; i < rank; ++i) {
    const bool r = reduced[static_cast<size_t>(i)];
    check(kind == Reduction::sum || !r || shape[i] > 0, "[reduce] got the shape ", shape,
          "; the largest or smallest of no elements does not exist");
    if (!r)
      result.push_back(shape[i]);
    else if (keep_axes)
      result.push_back(1);
  }
  if (result.size() == 0) return Array(result, x.dtype());

  // Reduces one run of neighbouring axes at a time, the innermost first.
  Array value = x;
  for (int end = rank; end > 0;) {
    if (!reduced[static_cast<size_t>(end - 1)]) {
      --end;
      continue;
    }
    int first = end - 1;
    while (first > 0 && reduced[static_cast<size_t>(first - 1)]) --first;
    int64_t outer = 1, rows = 1;
    for (int i = 0; i < first; ++i) outer *= shape[i];
    for (int i = first; i < end; ++i) rows *= shape[i], shape[i] = 1;
    const int64_t width = outer ? shape.size() / outer : 0;
    dispatch_floating(x.dtype(), [&](auto zero) {
      using T = decltype(zero);
      value = reduce_middle(kind, value.data<T>(), outer, Rows(rows, width));
    });
    end = first;
  }
  return value.reshape(result);
}

Array argmax(const Array& x) {
  const Last rows = last_axis("argmax", x);
  Array y(Shape(x.shape().begin(), x.shape().end() - 1), DType::s32);
  int32_t* out = y.data<int32_t>();
  dispatch_any(x.dtype(), [&](auto zero) {
    const auto* from = x.data<decltype(zero)>();
    parallel_for(rows.count, std::max<int64_t>(1, grain / rows.length), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const auto* row = from + r * rows.length;
        int64_t best = 0;
        for (int64_t i = 1; i < rows.length; ++i)
          if (row[i] > row[best]) best = i;
        out[r] = static_cast<int32_t>(best);
      }
    });
  });
  return y;
}

Array softmax(const Array& x) {
  return softmax_rows(
      "softmax", x,
      []<class T, class R>(const simd::Loops<T>& loops, const T*, R* exps, T* y, int64_t n, R, double sum) {
        simd::loops<R>().affine(exps, exps, n, static_cast<R>(1 / sum), 0);
        loops.narrow(exps, y, n);
      });
}

Array log_softmax(const Array& x) {
  return softmax_rows("log_softmax", x,
                      []<class T, class R>(const simd::Loops<T>& loops, const T* row, R* exps, T* y,
                                           int64_t n, R max, double sum) {
                        loops.widen(row, exps, n);
                        const simd::Loops<R>& reals = simd::loops<R>();
                        reals.affine(exps, exps, n, 1, -max);
                        reals.affine(exps, exps, n, 1, static_cast<R>(-std::log(sum)));
                        loops.narrow(exps, y, n);
                      });
}

}  // namespace stairgrad::kernels
