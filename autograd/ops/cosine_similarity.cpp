// <a, b> / (|a| |b|), with norms of at least eps.
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {

Tensor cosine_similarity(const Tensor& a, const Tensor& b, const Axes& axes, double eps) {
  check(a.shape() == b.shape(), "[cosine_similarity] got the shapes ", a.shape(), " and ", b.shape(),
        ", expected equal ones");
  return sum(l2_normalise(a, axes, eps) * l2_normalise(b, axes, eps), axes);
}

std::vector<Sample> cosine_similarity_samples() {
  const Tensors in = {sample_tensor({2, 3, 4}, 1), sample_tensor({2, 3, 4}, 2)};
  return {{"(2,3,4) last", [](const Tensors& t) { return cosine_similarity(t[0], t[1]); }, in},
          {"(2,3,4) axes 0,1",
           [](const Tensors& t) {
             return cosine_similarity(t[0], t[1], {0, 1});
           },
           in}};
}

}  // namespace stairgrad
