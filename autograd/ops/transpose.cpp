// y = x with its axes in another order. vjp: u in the inverse order.
#include <numeric>

#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Transpose final : Op {
  std::vector<int> permutation;

  explicit Transpose(std::vector<int> permutation) : permutation(std::move(permutation)) {}
  std::string_view name() const override { return "transpose"; }
  Arrays forward(const Arrays& in) const override { return {kernels::transpose(in[0], permutation)}; }
  Tensors vjp(const Vjp& v) const override {
    std::vector<int> inverse(permutation.size());
    for (size_t i = 0; i < permutation.size(); ++i)
      inverse[static_cast<size_t>(permutation[i])] = static_cast<int>(i);
    return {transpose(v.grad(), inverse)};
  }
};

}  // namespace

Tensor transpose(const Tensor& x, const std::vector<int>& permutation) {
  std::vector<int> order(static_cast<size_t>(x.rank()));
  std::iota(order.begin(), order.end(), 0);
  if (permutation == order) return x;
  check(std::is_permutation(order.begin(), order.end(), permutation.begin(), permutation.end()),
        "[transpose] got a permutation that does not name each axis of ", x.shape(), " once");
  return apply_op(Transpose{permutation}, {x});
}

std::vector<Sample> transpose_samples() {
  return {{"(2,3) 1,0",
           [](const Tensors& t) {
             return transpose(t[0], {1, 0});
           },
           {sample_tensor({2, 3})}},
          {"(2,3,4,5) 3,1,0,2",
           [](const Tensors& t) {
             return transpose(t[0], {3, 1, 0, 2});
           },
           {sample_tensor({2, 3, 4, 5})}},
          {"(0,3) 1,0",
           [](const Tensors& t) {
             return transpose(t[0], {1, 0});
           },
           {sample_tensor({0, 3})}}};
}

}  // namespace stairgrad
