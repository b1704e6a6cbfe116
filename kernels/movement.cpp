#include "movement.h"

#include <algorithm>
#include <cstring>

#include "simd/simd.h"
#include "threads.h"

namespace stairgrad::kernels {
namespace {

constexpr int64_t grain_bytes = 1 << 17;  // of a piece of parallel work

// Calls body with a value of an unsigned type as wide as an element: a copy does not care what it copies.
template <class Body>
void dispatch_size(DType type, const Body& body) {
  switch (size_of(type)) {
    case 8:
      return body(uint64_t{});
    case 4:
      return body(uint32_t{});
    case 2:
      return body(uint16_t{});
    default:
      return body(uint8_t{});
  }
}

// The bits of `value` as an element of `type`.
template <class U>
U bits_of(double value, DType type) {
  U bits{};
  const Array element = Array::full({}, value, type);
  std::memcpy(&bits, element.raw(), sizeof bits);
  return bits;
}

// A strided box of elements: one side of a copy.
struct Box {
  std::vector<int64_t> strides;
  int64_t offset = 0;
};

std::vector<int64_t> dense_strides(const Shape& shape) {
  std::vector<int64_t> strides(static_cast<size_t>(shape.rank()));
  int64_t stride = 1;
  for (int i = shape.rank(); i-- > 0; stride *= shape[i]) strides[static_cast<size_t>(i)] = stride;
  return strides;
}

// One axis of a copy, or several that are one run on both sides.
struct Axis {
  int64_t extent, from, to;
};

std::vector<Axis> merged(const Shape& extents, const Box& from, const Box& to) {
  std::vector<Axis> axes;
  for (int i = 0; i < extents.rank(); ++i) {
    const auto k = static_cast<size_t>(i);
    const Axis axis{extents[i], from.strides[k], to.strides[k]};
    if (axis.extent == 1) continue;
    if (!axes.empty() && axes.back().from == axis.from * axis.extent &&
        axes.back().to == axis.to * axis.extent)
      axes.back() = {axes.back().extent * axis.extent, axis.from, axis.to};
    else
      axes.push_back(axis);
  }
  if (axes.empty()) axes.push_back({1, 1, 1});
  return axes;
}

// Copies a box of `extents` from one array into another of the same type.
void copy_box(const Array& src, const Box& from, Array& dst, const Box& to, const Shape& extents) {
  if (extents.size() == 0) return;
  const std::vector<Axis> axes = merged(extents, from, to);
  const Axis inner = axes.back();
  const int64_t rows = extents.size() / inner.extent;
  dispatch_size(src.dtype(), [&](auto zero) {
    using U = decltype(zero);
    const U* source = static_cast<const U*>(src.raw()) + from.offset;
    U* target = static_cast<U*>(dst.raw()) + to.offset;
    const int64_t row_bytes = inner.extent * static_cast<int64_t>(sizeof(U));
    parallel_for(rows, std::max<int64_t>(1, grain_bytes / row_bytes), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const U* s = source;
        U* t = target;
        int64_t left = row;
        for (size_t i = axes.size() - 1; i-- > 0; left /= axes[i].extent) {
          s += left % axes[i].extent * axes[i].from;
          t += left % axes[i].extent * axes[i].to;
        }
        if (inner.from == 1 && inner.to == 1)
          std::memcpy(t, s, static_cast<size_t>(row_bytes));
        else
          for (int64_t k = 0; k < inner.extent; ++k) t[k * inner.to] = s[k * inner.from];
      }
    });
  });
}

// The elements that `ranges` select of an array of `shape`: where they are, and how many along each axis.
Shape select(const char* what, const Shape& shape, const std::vector<Range>& ranges, Box& box) {
  check(static_cast<int>(ranges.size()) == shape.rank(), "[", what, "] got ", ranges.size(),
        " ranges for the shape ", shape, ", expected one for each axis");
  box = {dense_strides(shape), 0};
  Shape extents;
  for (int i = 0; i < shape.rank(); ++i) {
    const auto k = static_cast<size_t>(i);
    const Range& r = ranges[k];
    check(r.step >= 1 && r.start >= 0 && r.start <= r.stop && r.stop <= shape[i], "[", what,
          "] got the range [", r.start, ",", r.stop, ") with step ", r.step, " along axis ", i, " of ",
          shape);
    extents.push_back((r.stop - r.start + r.step - 1) / r.step);
    box.offset += r.start * box.strides[k];
    box.strides[k] *= r.step;
  }
  return extents;
}

int checked_axis(const char* what, int axis, const Shape& shape) {
  check(axis >= -shape.rank() && axis < shape.rank(), "[", what, "] got axis ", axis,
        " of an array of shape ", shape);
  return axis < 0 ? axis + shape.rank() : axis;
}

// The indices, all checked to lie in [0, size).
const int32_t* checked_index(const char* what, const Array& index, int64_t size) {
  const int32_t* values = index.data<int32_t>();
  for (int64_t i = 0; i < index.size(); ++i)
    check(values[i] >= 0 && values[i] < size, "[", what, "] got the index ", values[i], " at position ", i,
          ", expected 0 <= index < ", size);
  return values;
}

// An array as (outer, axis, inner).
struct Around {
  int64_t outer = 1, extent, inner = 1;
  Around(const Shape& shape, int axis) : extent(shape[axis]) {
    for (int i = 0; i < axis; ++i) outer *= shape[i];
    for (int i = axis + 1; i < shape.rank(); ++i) inner *= shape[i];
  }
};

void check_leading(const char* what, const Array& x, const Array& index) {
  check(x.rank() >= 1 && x.rank() == index.rank(), "[", what, "] got x ", x.shape(), " and index ",
        index.shape(), ", expected the same rank, at least 1");
  for (int i = 0; i + 1 < x.rank(); ++i)
    check(x.dim(i) == index.dim(i), "[", what, "] got x ", x.shape(), " and index ", index.shape(),
          ", expected equal leading axes");
}

}  // namespace

Array transpose(const Array& x, const std::vector<int>& permutation) {
  std::vector<int> sorted = permutation;
  std::sort(sorted.begin(), sorted.end());
  bool valid = static_cast<int>(sorted.size()) == x.rank();
  for (size_t i = 0; valid && i < sorted.size(); ++i) valid = sorted[i] == static_cast<int>(i);
  check(valid, "[transpose] got a permutation of ", permutation.size(), " axes for the shape ", x.shape(),
        ", expected each of its axes once");
  const std::vector<int64_t> strides = dense_strides(x.shape());
  Shape shape;
  Box from;
  for (const int axis : permutation) {
    shape.push_back(x.dim(axis));
    from.strides.push_back(strides[static_cast<size_t>(axis)]);
  }
  Array y(shape, x.dtype());
  copy_box(x, from, y, {dense_strides(shape), 0}, shape);
  return y;
}

Array slice(const Array& x, const std::vector<Range>& ranges) {
  Box from;
  const Shape shape = select("slice", x.shape(), ranges, from);
  Array y(shape, x.dtype());
  copy_box(x, from, y, {dense_strides(shape), 0}, shape);
  return y;
}

Array unslice(const Array& x, const Shape& shape, const std::vector<Range>& ranges) {
  Box to;
  const Shape extents = select("unslice", shape, ranges, to);
  check(extents == x.shape(), "[unslice] got the shape ", x.shape(), ", expected ", extents,
        " because that is what the ranges select of ", shape);
  Array y = Array::zeros(shape, x.dtype());
  copy_box(x, {dense_strides(extents), 0}, y, to, extents);
  return y;
}

Array pad(const Array& x, const std::vector<int64_t>& before, const std::vector<int64_t>& after,
          double value) {
  check(static_cast<int>(before.size()) == x.rank() && before.size() == after.size(), "[pad] got ",
        before.size(), " and ", after.size(), " paddings for the shape ", x.shape(),
        ", expected one for each axis");
  Shape shape;
  for (int i = 0; i < x.rank(); ++i) {
    const auto k = static_cast<size_t>(i);
    check(before[k] >= 0 && after[k] >= 0, "[pad] got the paddings ", before[k], " and ", after[k],
          " of axis ", i, "; to cut elements off use slice");
    shape.push_back(before[k] + x.dim(i) + after[k]);
  }
  Array y(shape, x.dtype());
  dispatch_size(x.dtype(), [&](auto zero) {
    using U = decltype(zero);
    std::fill_n(static_cast<U*>(y.raw()), y.size(), bits_of<U>(value, x.dtype()));
  });
  Box to{dense_strides(shape), 0};
  for (size_t k = 0; k < before.size(); ++k) to.offset += before[k] * to.strides[k];
  copy_box(x, {dense_strides(x.shape()), 0}, y, to, x.shape());
  return y;
}

Array concat(const Arrays& parts, int axis) {
  check(!parts.empty(), "[concat] got no arrays, expected at least one");
  Shape shape = parts[0].shape();
  const int along = checked_axis("concat", axis, shape);
  shape[along] = 0;
  for (const Array& part : parts) {
    Shape others = part.shape();
    if (others.rank() == shape.rank()) others[along] = shape[along];
    check(others == shape && part.dtype() == parts[0].dtype(), "[concat] got ", name_of(part.dtype()),
          part.shape(), " and ", name_of(parts[0].dtype()), parts[0].shape(), " along axis ", along,
          ", expected equal types and equal other axes");
    shape[along] += part.dim(along);
  }
  Array y(shape, parts[0].dtype());
  Box to{dense_strides(shape), 0};
  for (const Array& part : parts) {
    copy_box(part, {dense_strides(part.shape()), 0}, y, to, part.shape());
    to.offset += part.dim(along) * to.strides[static_cast<size_t>(along)];
  }
  return y;
}

Array index_select(const Array& x, int axis, const Array& index) {
  const int along = checked_axis("index_select", axis, x.shape());
  check(index.rank() == 1, "[index_select] index: got the shape ", index.shape(), ", expected rank 1");
  const Around around(x.shape(), along);
  const int32_t* picks = checked_index("index_select", index, around.extent);
  Shape shape = x.shape();
  shape[along] = index.size();
  Array y(shape, x.dtype());
  const int64_t run = around.inner * static_cast<int64_t>(size_of(x.dtype()));
  if (y.size() == 0) return y;
  const char* from = static_cast<const char*>(x.raw());
  char* to = static_cast<char*>(y.raw());
  const int64_t count = index.size();
  parallel_for(around.outer * count, std::max<int64_t>(1, grain_bytes / run),
               [=](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i)
                   std::memcpy(to + i * run, from + (i / count * around.extent + picks[i % count]) * run,
                               static_cast<size_t>(run));
               });
  return y;
}

Array index_add(const Array& x, int axis, const Array& index, int64_t size) {
  const int along = checked_axis("index_add", axis, x.shape());
  check(index.rank() == 1 && index.size() == x.dim(along), "[index_add] index: got the shape ", index.shape(),
        ", expected (", x.dim(along), ") because x is ", x.shape(), " and the axis ", along);
  const int32_t* picks = checked_index("index_add", index, size);
  // bf16 is added up in f32 and rounded once.
  if (x.dtype() == DType::bf16) return cast(index_add(cast(x, DType::f32), axis, index, size), DType::bf16);
  Shape shape = x.shape();
  shape[along] = size;
  Array y = Array::zeros(shape, x.dtype());
  const Around around(x.shape(), along);
  dispatch_floating(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* from = x.data<T>();
    T* to = y.data<T>();
    for (int64_t o = 0; o < around.outer; ++o)
      for (int64_t k = 0; k < around.extent; ++k, from += around.inner) {
        T* row = to + (o * size + picks[k]) * around.inner;
        simd::loops<T>().binary[static_cast<int>(Binary::add)](row, from, row, around.inner);
      }
  });
  return y;
}

Array gather(const Array& x, const Array& index) {
  check_leading("gather", x, index);
  const int64_t width = x.shape().back(), count = index.shape().back();
  const int32_t* picks = checked_index("gather", index, width);
  Array y(index.shape(), x.dtype());
  dispatch_size(x.dtype(), [&](auto zero) {
    using U = decltype(zero);
    const U* from = static_cast<const U*>(x.raw());
    U* to = static_cast<U*>(y.raw());
    for (int64_t i = 0; i < y.size(); ++i) to[i] = from[i / count * width + picks[i]];
  });
  return y;
}

Array scatter_add(const Array& x, const Array& index, int64_t size) {
  check(x.shape() == index.shape() && x.rank() >= 1, "[scatter_add] got x ", x.shape(), " and index ",
        index.shape(), ", expected equal shapes of rank 1 or more");
  const int32_t* picks = checked_index("scatter_add", index, size);
  if (x.dtype() == DType::bf16) return cast(scatter_add(cast(x, DType::f32), index, size), DType::bf16);
  Shape shape = x.shape();
  shape[-1] = size;
  Array y = Array::zeros(shape, x.dtype());
  const int64_t count = x.shape().back();
  dispatch_floating(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* from = x.data<T>();
    T* to = y.data<T>();
    for (int64_t i = 0; i < x.size(); ++i) {
      T& sum = to[i / count * size + picks[i]];
      sum = static_cast<T>(sum + from[i]);
    }
  });
  return y;
}

Array one_hot(const Array& index, int64_t depth, DType dtype) {
  const int32_t* picks = checked_index("one_hot", index, depth);
  Shape shape = index.shape();
  shape.push_back(depth);
  Array y = Array::zeros(shape, dtype);
  dispatch_any(dtype, [&](auto zero) {
    using T = decltype(zero);
    T* to = y.data<T>();
    for (int64_t i = 0; i < index.size(); ++i) {
      if constexpr (std::is_same_v<T, bf16>)
        to[i * depth + picks[i]] = bf16(1.0f);
      else
        to[i * depth + picks[i]] = T{1};
    }
  });
  return y;
}

}  // namespace stairgrad::kernels
