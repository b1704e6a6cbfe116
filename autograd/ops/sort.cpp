// Sort along the last axis, and its first k elements: a constant order, then gather, whose adjoint puts u
// back. Equal elements keep their order.
#include "../../kernels/sort.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Argsort final : Op {
  bool descending;

  explicit Argsort(bool descending) : descending(descending) {}
  std::string_view name() const override { return "argsort"; }
  Arrays forward(const Arrays& in) const override { return {kernels::argsort(in[0], descending)}; }
  bool differentiable(int) const override { return false; }
};

}  // namespace

Sorted sort(const Tensor& x, bool descending) {
  check(x.rank() >= 1, "[sort] got a scalar, expected at least one axis");
  const Tensor index = apply_op(Argsort{descending}, {x});
  return {gather(x, index), index};
}

Sorted top_k(const Tensor& x, int64_t k) {
  check(x.rank() >= 1 && k >= 0 && k <= x.shape().back(), "[top_k] got k = ", k, " for ", x.shape(),
        ", expected at most the last extent");
  const Tensor index = slice(apply_op(Argsort{true}, {x}), -1, 0, k);
  return {gather(x, index), index};
}

std::vector<Sample> sort_samples() {
  const Tensor x = sample_distinct({3, 5});
  return {{"sort (3,5)", [](const Tensors& t) { return sort(t[0]).values; }, {x}},
          {"sort (3,5) descending", [](const Tensors& t) { return sort(t[0], true).values; }, {x}},
          {"top_k (3,5) 2", [](const Tensors& t) { return top_k(t[0], 2).values; }, {x}},
          {"sort (1)", [](const Tensors& t) { return sort(t[0]).values; }, {sample_distinct({1})}}};
}

}  // namespace stairgrad
