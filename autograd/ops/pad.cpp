// y = x with a border of a constant value. vjp: the inner box of u.
#include "pad.h"

#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {

Arrays PadOp::forward(const Arrays& in) const { return {kernels::pad(in[0], before, after, value)}; }

Tensors PadOp::vjp(const Vjp& v) const {
  const Shape& shape = v.input_shape(0);
  std::vector<Range> inner;
  for (size_t i = 0; i < before.size(); ++i)
    inner.push_back({before[i], before[i] + shape[static_cast<int>(i)], 1});
  return {slice(v.grad(), inner)};
}

Tensor pad(const Tensor& x, const std::vector<int64_t>& before, const std::vector<int64_t>& after,
           double value) {
  const auto rank = static_cast<size_t>(x.rank());
  check(before.size() == rank && after.size() == rank, "[pad] got ", before.size(), " and ", after.size(),
        " widths for the shape ", x.shape());
  for (size_t i = 0; i < rank; ++i)
    check(before[i] >= 0 && after[i] >= 0, "[pad] got the widths ", before[i], " and ", after[i],
          " for axis ", i, ", expected none below 0");
  return apply_op(PadOp(before, after, value), {x});
}

std::vector<Sample> pad_samples() {
  return {{"(2,3) 1,0 0,2",
           [](const Tensors& t) {
             return pad(t[0], {1, 0}, {0, 2});
           },
           {sample_tensor({2, 3})}},
          {"(1,2,2,3) spatial, value 1.5",
           [](const Tensors& t) {
             return pad(t[0], {0, 1, 1, 0}, {0, 1, 2, 0}, 1.5);
           },
           {sample_tensor({1, 2, 2, 3})}},
          {"(0) 1 1", [](const Tensors& t) { return pad(t[0], {1}, {1}, 2); }, {sample_tensor({0})}}};
}

}  // namespace stairgrad
