// Extents of a dense, row-major array.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <vector>

#include "error.h"

namespace stairgrad {

/// Up to six extents, outermost first. Images are (n, h, w, c), weights (oc, kh, kw, ic / groups).
class Shape {
 public:
  static constexpr int max_rank = 6;

  Shape() = default;
  Shape(std::initializer_list<int64_t> extents) : Shape(extents.begin(), extents.end()) {}
  explicit Shape(const std::vector<int64_t>& extents) : Shape(extents.begin(), extents.end()) {}
  template <class It>
  Shape(It first, It last) {
    for (; first != last; ++first) push_back(*first);
  }

  int rank() const { return rank_; }
  /// Extent of an axis; negative axes count from the end.
  int64_t operator[](int axis) const { return extents_[at(axis)]; }
  int64_t& operator[](int axis) { return extents_[at(axis)]; }
  const int64_t* begin() const { return extents_.data(); }
  const int64_t* end() const { return extents_.data() + rank_; }
  int64_t back() const { return (*this)[-1]; }

  void push_back(int64_t extent) {
    check(rank_ < max_rank, "[shape] got more than ", max_rank, " extents; merge some of them with reshape");
    check(extent >= 0, "[shape] got the extent ", extent, "; extents are zero or more");
    extents_[rank_++] = extent;
  }

  /// Number of elements; 1 for a scalar.
  int64_t size() const {
    int64_t n = 1;
    for (const int64_t extent : *this) n *= extent;
    return n;
  }

  bool operator==(const Shape& other) const { return std::equal(begin(), end(), other.begin(), other.end()); }

 private:
  int at(int axis) const {
    check(axis >= -rank_ && axis < rank_, "[shape] got axis ", axis, " of an array of rank ", rank_);
    return axis < 0 ? axis + rank_ : axis;
  }

  std::array<int64_t, max_rank> extents_{};
  int rank_ = 0;
};

inline std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  out << '(';
  for (int i = 0; i < shape.rank(); ++i) out << (i ? "," : "") << shape[i];
  return out << ')';
}

}  // namespace stairgrad
