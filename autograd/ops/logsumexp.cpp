// y = log(sum(exp(x))) over axes, with the largest element taken out so that nothing overflows.
#include "../axes.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {

Tensor logsumexp(const Tensor& x, const Axes& axes, bool keep_axes) {
  const Axes over = resolve_axes("logsumexp", axes, x.rank());
  const Tensor largest = stop_grad(max(x, over, /*keep_axes=*/true));
  const Tensor y = log(sum(exp(x - largest), over, /*keep_axes=*/true)) + largest;
  return keep_axes ? y : reshape(y, without_axes(x.shape(), over));
}

std::vector<Sample> logsumexp_samples() {
  const Tensor x = sample_distinct({2, 3, 4});
  return {{"(2,3,4) all", [](const Tensors& t) { return logsumexp(t[0]); }, {x}},
          {"(2,3,4) axes 0,2",
           [](const Tensors& t) {
             return logsumexp(t[0], {0, 2});
           },
           {x}},
          {"(2,3,4) axis 1, large", [](const Tensors& t) { return logsumexp(t[0] * 1000, {1}, true); }, {x}},
          {"(1)", [](const Tensors& t) { return logsumexp(t[0]); }, {sample_tensor({1})}}};
}

}  // namespace stairgrad
