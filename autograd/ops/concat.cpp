// y = tensors one behind the other along an axis. vjp: the slices of u.
#include "concat.h"

#include "../axes.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {

Arrays ConcatOp::forward(const Arrays& in) const { return {kernels::concat(in, axis)}; }

Tensors ConcatOp::vjp(const Vjp& v) const {
  const Tensor u = v.grad();
  Tensors gradients;
  int64_t start = 0;
  for (int i = 0; i < v.inputs(); ++i) {
    const int64_t stop = start + v.input_shape(i)[axis];
    gradients.push_back(v.needs(i) ? slice(u, axis, start, stop) : Tensor());
    start = stop;
  }
  return gradients;
}

Tensor concat(const Tensors& parts, int axis) {
  check(!parts.empty(), "[concat] got no tensors");
  const Axes axes = resolve_axes("concat", {axis}, parts[0].rank());
  for (const Tensor& part : parts)
    check(part.rank() == parts[0].rank() &&
              without_axes(part.shape(), axes) == without_axes(parts[0].shape(), axes),
          "[concat] got the shapes ", parts[0].shape(), " and ", part.shape(),
          ", which differ in other axes than ", axes[0]);
  return apply_op(ConcatOp(axes[0]), parts);
}

std::vector<Sample> concat_samples() {
  const auto f = [](const Tensors& t) { return concat(t, 1); };
  return {{"(2,3,2) (2,1,2) (2,2,2) axis 1",
           f,
           {sample_tensor({2, 3, 2}, 1), sample_tensor({2, 1, 2}, 2), sample_tensor({2, 2, 2}, 3)}},
          {"(3,2) (3,4) axis -1",
           [](const Tensors& t) { return concat(t, -1); },
           {sample_tensor({3, 2}, 1), sample_tensor({3, 4}, 2)}},
          {"(2,0) (2,1) axis 1", f, {sample_tensor({2, 0}, 1), sample_tensor({2, 1}, 2)}}};
}

}  // namespace stairgrad
