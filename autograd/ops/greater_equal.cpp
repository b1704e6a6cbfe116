// y = 1 where a >= b, else 0, with broadcasting; a constant: no gradient flows.
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct GreaterEqual final : Op {
  std::string_view name() const override { return "greater_equal"; }
  Arrays forward(const Arrays& in) const override {
    return {kernels::binary(kernels::Binary::greater_equal, in[0], in[1])};
  }
  bool differentiable(int) const override { return false; }
};

}  // namespace

Tensor greater_equal(const Tensor& a, const Tensor& b) { return apply_op(GreaterEqual{}, {a, b}); }

std::vector<Sample> greater_equal_samples() {
  const auto f = [](const Tensors& t) { return greater_equal(t[0], t[1] + 0.01); };
  return {{"(3,4) (3,4)", f, {sample_distinct({3, 4}, 1), sample_distinct({3, 4}, 2)}},
          {"(2,3,4) (4)", f, {sample_distinct({2, 3, 4}, 1), sample_distinct({4}, 2)}}};
}

}  // namespace stairgrad
