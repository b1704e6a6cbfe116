// y = x with another shape, in the same memory. vjp: u in the shape of x.
#include "reshape.h"

#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {

Tensors ReshapeOp::vjp(const Vjp& v) const { return {reshape(v.grad(), v.input_shape(0))}; }

Tensor reshape(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  return apply_op(ReshapeOp(shape), {x});
}

std::vector<Sample> reshape_samples() {
  return {{"(2,3,4) to (6,4)",
           [](const Tensors& t) {
             return reshape(t[0], {6, 4});
           },
           {sample_tensor({2, 3, 4})}},
          {"(1) to ()", [](const Tensors& t) { return reshape(t[0], {}); }, {sample_tensor({1})}},
          {"(0,3) to (3,0)",
           [](const Tensors& t) {
             return reshape(t[0], {3, 0});
           },
           {sample_tensor({0, 3})}}};
}

}  // namespace stairgrad
