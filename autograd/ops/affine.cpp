// y = scale x + shift, with constants. vjp: scale u.
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Affine final : Op {
  double scale, shift;

  Affine(double scale, double shift) : scale(scale), shift(shift) {}
  std::string_view name() const override { return "affine"; }
  Arrays forward(const Arrays& in) const override { return {kernels::affine(in[0], scale, shift)}; }
  Tensors vjp(const Vjp& v) const override { return {affine(v.grad(), scale, 0)}; }
};

}  // namespace

Tensor affine(const Tensor& x, double scale, double shift) { return apply_op(Affine{scale, shift}, {x}); }

std::vector<Sample> affine_samples() {
  const auto f = [](const Tensors& t) { return affine(t[0], -1.5, 0.25); };
  return {{"(3,4)", f, {sample_tensor({3, 4})}},
          {"(1)", f, {sample_tensor({1})}},
          {"(0,3)", f, {sample_tensor({0, 3})}}};
}

}  // namespace stairgrad
