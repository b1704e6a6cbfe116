// Slice takes a strided box out of x, and its adjoint, unslice, puts one into zeros: each is the other's vjp.
#include "slice.h"

#include "../axes.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Unslice final : Op {
  Shape shape;
  std::vector<Range> ranges;

  Unslice(const Shape& shape, std::vector<Range> ranges) : shape(shape), ranges(std::move(ranges)) {}
  std::string_view name() const override { return "unslice"; }
  Arrays forward(const Arrays& in) const override { return {kernels::unslice(in[0], shape, ranges)}; }
  Tensors vjp(const Vjp& v) const override { return {slice(v.grad(), ranges)}; }
};

// The shape of the box, which must lie in `shape`.
Shape box(std::string_view op, const Shape& shape, const std::vector<Range>& ranges) {
  check(static_cast<int>(ranges.size()) == shape.rank(), "[", op, "] got ", ranges.size(),
        " ranges for the shape ", shape);
  Shape extents;
  for (int i = 0; i < shape.rank(); ++i) {
    const Range& r = ranges[static_cast<size_t>(i)];
    check(r.start >= 0 && r.start <= r.stop && r.stop <= shape[i] && r.step >= 1, "[", op, "] got the range ",
          r.start, ":", r.stop, ":", r.step, " for axis ", i, " of ", shape);
    extents.push_back((r.stop - r.start + r.step - 1) / r.step);
  }
  return extents;
}

}  // namespace

Tensors SliceOp::vjp(const Vjp& v) const { return {unslice(v.grad(), v.input_shape(0), ranges)}; }

Tensor slice(const Tensor& x, const std::vector<Range>& ranges) {
  box("slice", x.shape(), ranges);
  return apply_op(SliceOp(ranges), {x});
}

Tensor slice(const Tensor& x, int axis, int64_t start, int64_t stop) {
  const int along = resolve_axes("slice", {axis}, x.rank())[0];
  std::vector<Range> ranges;
  for (int i = 0; i < x.rank(); ++i)
    ranges.push_back(i == along ? Range{start, stop, 1} : Range{0, x.dim(i), 1});
  return slice(x, ranges);
}

Tensor unslice(const Tensor& x, const Shape& shape, const std::vector<Range>& ranges) {
  const Shape expected = box("unslice", shape, ranges);
  check(x.shape() == expected, "[unslice] got ", x.shape(), ", expected the box ", expected, " of ", shape);
  return apply_op(Unslice{shape, ranges}, {x});
}

std::vector<Sample> slice_samples() {
  return {
      {"(4,5,3) 1:4, 0:5:2, 2:3",
       [](const Tensors& t) {
         return slice(t[0], {{1, 4, 1}, {0, 5, 2}, {2, 3, 1}});
       },
       {sample_tensor({4, 5, 3})}},
      {"(4,5) axis -1 1:3", [](const Tensors& t) { return slice(t[0], -1, 1, 3); }, {sample_tensor({4, 5})}},
      {"(4,5) axis 0 2:2", [](const Tensors& t) { return slice(t[0], 0, 2, 2); }, {sample_tensor({4, 5})}},
      {"unslice (2,3) into (5,4)",
       [](const Tensors& t) {
         return unslice(t[0], {5, 4}, {{1, 5, 3}, {1, 4, 1}});
       },
       {sample_tensor({2, 3})}}};
}

}  // namespace stairgrad
