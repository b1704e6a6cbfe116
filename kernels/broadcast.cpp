// Broadcasting of elementwise.h: binary() and broadcast_to().
#include <algorithm>
#include <cstring>

#include "elementwise.h"
#include "simd/simd.h"
#include "threads.h"

namespace stairgrad::kernels {
namespace {

constexpr int64_t grain = 1 << 15;  // elements of a piece of parallel work

// An axis of the result, or several that behave alike: whether a and b have it or repeat along it.
struct Group {
  int64_t extent;
  bool a, b;
};

// The groups of axes, outermost first, as few as possible. `a` and `b` broadcast to `shape`.
std::vector<Group> groups_of(const Shape& shape, const Shape& a, const Shape& b) {
  std::vector<Group> groups;
  for (int i = 0; i < shape.rank(); ++i) {
    if (shape[i] == 1) continue;
    const auto has = [&](const Shape& s) {
      const int axis = i - shape.rank() + s.rank();
      return axis >= 0 && s[axis] != 1;
    };
    const Group group{shape[i], has(a), has(b)};
    if (!groups.empty() && groups.back().a == group.a && groups.back().b == group.b)
      groups.back().extent *= group.extent;
    else
      groups.push_back(group);
  }
  if (groups.empty()) groups.push_back({1, true, true});
  return groups;
}

// Calls row(a offset, b offset, first element of the result) for every run of the innermost group.
template <class Row>
void for_rows(const std::vector<Group>& groups, const Row& row) {
  const int64_t width = groups.back().extent;
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < groups.size(); ++i) rows *= groups[i].extent;
  parallel_for(rows, std::max<int64_t>(1, grain / width), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      int64_t a = 0, b = 0, left = r;
      int64_t a_stride = groups.back().a ? width : 1, b_stride = groups.back().b ? width : 1;
      for (size_t i = groups.size() - 1; i-- > 0;) {
        const Group& g = groups[i];
        const int64_t at = left % g.extent;
        left /= g.extent;
        if (g.a) a += at * a_stride, a_stride *= g.extent;
        if (g.b) b += at * b_stride, b_stride *= g.extent;
      }
      row(a, b, r * width);
    }
  });
}

template <class T>
void binary_row(Binary function, const T* a, bool a_moves, const T* b, bool b_moves, T* y, int64_t n) {
  const simd::Loops<T>& loops = simd::loops<T>();
  const int f = static_cast<int>(function);
  if (a_moves && b_moves)
    loops.binary[f](a, b, y, n);
  else if (a_moves)
    loops.binary_scalar[f](a, static_cast<simd::Real<T>>(*b), y, n);
  else
    loops.scalar_binary[f](static_cast<simd::Real<T>>(*a), b, y, n);
}

// Cuts rows of few elements, all combined with one vector of the same width, into longer ones: calls
// row(the vector, repeated; first element; number of elements).
template <class T, class Row>
void vector_rows(const T* vector, int64_t width, int64_t size, const Row& row) {
  const int64_t repeat = 512 / width, wide = repeat * width;
  std::vector<T> repeated(static_cast<size_t>(wide));
  for (int64_t r = 0; r < repeat; ++r) std::copy_n(vector, width, repeated.begin() + r * width);
  parallel_for(size, (grain + wide - 1) / wide * wide, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; at += wide) row(repeated.data(), at, std::min(wide, end - at));
  });
}

}  // namespace

Shape broadcast_shape(const Shape& a, const Shape& b) {
  Shape result = a.rank() >= b.rank() ? a : b;
  const Shape& other = a.rank() >= b.rank() ? b : a;
  for (int i = 1; i <= other.rank(); ++i) {
    check(result[-i] == other[-i] || result[-i] == 1 || other[-i] == 1, "[broadcast] got the shapes ", a,
          " and ", b, ", expected equal extents or 1, counted from the last axis");
    if (result[-i] == 1) result[-i] = other[-i];
  }
  return result;
}

Array binary(Binary function, const Array& a, const Array& b) {
  check(a.dtype() == b.dtype(), "[binary] got the types ", name_of(a.dtype()), " and ", name_of(b.dtype()),
        ", expected equal types; convert one with cast");
  Array y(broadcast_shape(a.shape(), b.shape()), a.dtype());
  if (y.size() == 0) return y;
  const std::vector<Group> groups = groups_of(y.shape(), a.shape(), b.shape());
  const Group inner = groups.back();
  dispatch_floating(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T *pa = a.data<T>(), *pb = b.data<T>();
    T* py = y.data<T>();
    if (groups.size() == 2 && inner.a && inner.b && inner.extent < 256) {
      if (groups[0].a)
        vector_rows(pb, inner.extent, y.size(), [=](const T* vector, int64_t at, int64_t n) {
          binary_row(function, pa + at, true, vector, true, py + at, n);
        });
      else
        vector_rows(pa, inner.extent, y.size(), [=](const T* vector, int64_t at, int64_t n) {
          binary_row(function, vector, true, pb + at, true, py + at, n);
        });
    } else if (groups.size() == 1) {
      parallel_for(inner.extent, grain, [=](int64_t begin, int64_t end) {
        binary_row(function, inner.a ? pa + begin : pa, inner.a, inner.b ? pb + begin : pb, inner.b,
                   py + begin, end - begin);
      });
    } else {
      for_rows(groups, [=](int64_t at_a, int64_t at_b, int64_t at_y) {
        binary_row(function, pa + at_a, inner.a, pb + at_b, inner.b, py + at_y, inner.extent);
      });
    }
  });
  return y;
}

Array broadcast_to(const Array& src, const Shape& shape) {
  check(broadcast_shape(src.shape(), shape) == shape, "[broadcast_to] got the shape ", src.shape(),
        ", which does not repeat to ", shape);
  if (src.shape() == shape) return src;
  Array dst(shape, src.dtype());
  if (dst.size() == 0) return dst;
  const std::vector<Group> groups = groups_of(shape, src.shape(), shape);
  const Group inner = groups.back();
  dispatch_any(src.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* from = src.data<T>();
    T* to = dst.data<T>();
    for_rows(groups, [=](int64_t at_src, int64_t, int64_t at_dst) {
      if (inner.a)
        std::memcpy(to + at_dst, from + at_src, static_cast<size_t>(inner.extent) * sizeof(T));
      else
        std::fill_n(to + at_dst, inner.extent, from[at_src]);
    });
  });
  return dst;
}

}  // namespace stairgrad::kernels
