// y = x / max(|x|, eps). Below eps the norm counts as a constant, so a zero vector has a finite gradient.
#include <cmath>

#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {

Tensor l2_normalise(const Tensor& x, const Axes& axes, double eps) {
  return x * rsqrt(clamp(sum(square(x), axes, /*keep_axes=*/true), eps * eps, HUGE_VAL));
}

std::vector<Sample> l2_normalise_samples() {
  const Tensor x = sample_tensor({2, 3, 4});
  return {{"(2,3,4) last", [](const Tensors& t) { return l2_normalise(t[0]); }, {x}},
          {"(2,3,4) axes 0,1",
           [](const Tensors& t) {
             return l2_normalise(t[0], {0, 1});
           },
           {x}},
          {"(2,3,4) below eps", [](const Tensors& t) { return l2_normalise(t[0], {-1}, 100); }, {x}}};
}

}  // namespace stairgrad
