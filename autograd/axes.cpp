#include "axes.h"

#include <algorithm>

#include "ops.h"

namespace stairgrad {
namespace {

bool contains(const Axes& axes, int axis) { return std::find(axes.begin(), axes.end(), axis) != axes.end(); }

// The order of axes in which the given ones come last.
std::vector<int> last_order(int rank, const Axes& axes) {
  std::vector<int> order;
  for (int i = 0; i < rank; ++i)
    if (!contains(axes, i)) order.push_back(i);
  order.insert(order.end(), axes.begin(), axes.end());
  return order;
}

}  // namespace

Axes resolve_axes(std::string_view op, const Axes& axes, int rank) {
  Axes resolved;
  for (const int axis : axes) {
    check(axis >= -rank && axis < rank, "[", op, "] got the axis ", axis,
          ", expected one of a tensor of rank ", rank);
    resolved.push_back(axis < 0 ? axis + rank : axis);
  }
  if (axes.empty())
    for (int i = 0; i < rank; ++i) resolved.push_back(i);
  std::sort(resolved.begin(), resolved.end());
  check(std::adjacent_find(resolved.begin(), resolved.end()) == resolved.end(), "[", op,
        "] got an axis twice");
  return resolved;
}

Shape without_axes(const Shape& shape, const Axes& axes) {
  Shape kept;
  for (int i = 0; i < shape.rank(); ++i)
    if (!contains(axes, i)) kept.push_back(shape[i]);
  return kept;
}

Shape with_unit_axes(const Shape& shape, const Axes& axes) {
  Shape kept = shape;
  for (const int axis : axes) kept[axis] = 1;
  return kept;
}

Tensor to_rows(const Tensor& x, const Axes& axes) {
  int64_t elements = 1;
  for (const int axis : axes) elements *= x.dim(axis);
  return reshape(transpose(x, last_order(x.rank(), axes)), {without_axes(x.shape(), axes).size(), elements});
}

Tensor from_rows(const Tensor& rows, const Shape& shape, const Axes& axes) {
  const std::vector<int> order = last_order(shape.rank(), axes);
  Shape moved;
  std::vector<int> back(order.size());
  for (size_t i = 0; i < order.size(); ++i) {
    moved.push_back(shape[order[i]]);
    back[static_cast<size_t>(order[i])] = static_cast<int>(i);
  }
  return transpose(reshape(rows, moved), back);
}

}  // namespace stairgrad
