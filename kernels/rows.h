// Rows of channels for the loops of simd/: how norm.cpp and reduce.cpp cut (n, h, w, c) into pieces.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace stairgrad::kernels {

/// `count` rows of `channels` elements. Loops see `repeat` neighbouring rows as one wide row, so that few
/// channels fill vectors too; arrays with one element a channel are repeated likewise.
struct Rows {
  int64_t count, channels, repeat;

  Rows(int64_t count, int64_t channels)
      : count(count),
        channels(channels),
        repeat(std::max<int64_t>(1, 256 / std::max<int64_t>(1, channels))) {}

  int64_t width() const { return channels * repeat; }
  /// Rows of a chunk: sums are taken in float within it and in double over chunks. It is a multiple of
  /// `repeat`, and fixed, so that results do not depend on the number of threads.
  int64_t chunk() const {
    const int64_t rows = std::max<int64_t>(128, (1 << 15) / std::max<int64_t>(1, channels));
    return (rows + repeat - 1) / repeat * repeat;
  }
  int64_t chunks() const { return (count + chunk() - 1) / chunk(); }
  /// The part of all rows that chunk k has.
  double weight(int64_t k) const {
    return static_cast<double>(std::min(chunk(), count - k * chunk())) / static_cast<double>(count);
  }
  /// Chunks that are worth a thread.
  int64_t chunks_per_piece() const {
    return std::max<int64_t>(1, (1 << 15) / std::max<int64_t>(1, chunk() * channels));
  }

  /// Calls body(offset in elements, wide rows, width) for the rows [first, last): whole wide rows, then the
  /// rest.
  template <class Body>
  void wide(int64_t first, int64_t last, const Body& body) const {
    const int64_t whole = (last - first) / repeat, rest = (last - first) % repeat;
    if (whole) body(first * channels, whole, width());
    if (rest) body((first + whole * repeat) * channels, int64_t{1}, rest * channels);
  }

  /// One element a channel, repeated to a wide row.
  template <class R>
  std::vector<R> repeated(const R* values) const {
    std::vector<R> row(static_cast<size_t>(width()));
    for (int64_t r = 0; r < repeat; ++r) std::copy_n(values, channels, row.begin() + r * channels);
    return row;
  }

  /// Folds the first `copies` copies of each channel in a wide row into one double.
  template <class R, class Combine>
  void fold(const std::vector<R>& row, int64_t copies, double* result, const Combine& combine) const {
    std::copy_n(row.begin(), channels, result);
    for (int64_t k = 1; k < copies; ++k) {
      const R* copy = row.data() + k * channels;
      for (int64_t j = 0; j < channels; ++j) result[j] = combine(result[j], static_cast<double>(copy[j]));
    }
  }
};

}  // namespace stairgrad::kernels
