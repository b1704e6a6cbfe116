// y = maximum of a and b, with broadcasting. vjp: u goes to the chosen one; ties: to a, so the masks add up
// to 1.
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Maximum final : Op {
  std::string_view name() const override { return "maximum"; }
  Arrays forward(const Arrays& in) const override {
    return {kernels::binary(kernels::Binary::maximum, in[0], in[1])};
  }
  Tensors vjp(const Vjp& v) const override {
    const Tensor u = v.grad(), a_chosen = greater_equal(v.input(0), v.input(1)), zero(0, u.dtype());
    return {v.needs(0) ? sum_to(where(a_chosen, u, zero), v.input_shape(0)) : Tensor(),
            v.needs(1) ? sum_to(where(a_chosen, zero, u), v.input_shape(1)) : Tensor()};
  }
  Saved saved() const override { return {.inputs = {0, 1}}; }
};

}  // namespace

Tensor maximum(const Tensor& a, const Tensor& b) { return apply_op(Maximum{}, {a, b}); }

std::vector<Sample> maximum_samples() {
  const auto f = [](const Tensors& t) { return maximum(t[0], t[1] + 0.01); };
  return {{"(3,4) (3,4)", f, {sample_distinct({3, 4}, 1), sample_distinct({3, 4}, 2)}},
          {"(2,3,4) (4)", f, {sample_distinct({2, 3, 4}, 1), sample_distinct({4}, 2)}},
          {"(3,1) (2,1,4)", f, {sample_distinct({3, 1}, 1), sample_distinct({2, 1, 4}, 2)}}};
}

}  // namespace stairgrad
