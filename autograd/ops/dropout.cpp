// y = x mask / (1 - p): zeroes elements with probability p. The mask is a function of the key, so the vjp is
// dropout of u with the same key, and nothing is saved.
#include "../../kernels/elementwise.h"
#include "../../kernels/mask.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Dropout final : Op {
  double probability;
  Philox rng;

  Dropout(double probability, Philox rng) : probability(probability), rng(rng) {}
  std::string_view name() const override { return "dropout"; }
  Arrays forward(const Arrays& in) const override {
    const Array mask = kernels::random_mask(in[0].shape(), rng, 1 - probability, in[0].dtype());
    return {kernels::binary(kernels::Binary::mul, in[0], mask)};
  }
  Tensors vjp(const Vjp& v) const override { return {dropout(v.grad(), probability, rng)}; }
};

}  // namespace

Tensor dropout(const Tensor& x, double probability, Philox rng) {
  check(probability >= 0 && probability < 1, "[dropout] got the probability ", probability,
        ", expected [0, 1)");
  if (probability == 0) return x;
  return apply_op(Dropout{probability, rng}, {x});
}

std::vector<Sample> dropout_samples() {
  const auto f = [](const Tensors& t) { return dropout(t[0], 0.4, Philox(5)); };
  return {{"(5,7) 0.4", f, {sample_tensor({5, 7})}}, {"(0,3) 0.4", f, {sample_tensor({0, 3})}}};
}

}  // namespace stairgrad
