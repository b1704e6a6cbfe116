// y = x^e with a constant exponent; vjp: u e x^(e-1), and zero for e = 0. And y = a^b for positive a; vjp:
// (u b a^(b-1), u y log(a)), each summed to its input's shape.
#include "../../kernels/elementwise.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct ConstantPow final : Op {
  double exponent;

  explicit ConstantPow(double exponent) : exponent(exponent) {}
  std::string_view name() const override { return "pow"; }
  Arrays forward(const Arrays& in) const override {
    return {kernels::binary(kernels::Binary::pow, in[0], Array::scalar(exponent, in[0].dtype()))};
  }
  Tensors vjp(const Vjp& v) const override {
    if (exponent == 0) return {Array::zeros(v.input_shape(0), v.input_dtype(0))};
    return {v.grad() * pow(v.input(0), exponent - 1) * exponent};
  }
  Saved saved() const override { return {.inputs = {0}}; }
};

struct Pow final : Op {
  std::string_view name() const override { return "pow"; }
  Arrays forward(const Arrays& in) const override {
    return {kernels::binary(kernels::Binary::pow, in[0], in[1])};
  }
  Tensors vjp(const Vjp& v) const override {
    const Tensor u = v.grad(), &a = v.input(0), &b = v.input(1);
    return {v.needs(0) ? sum_to(u * b * pow(a, b - 1), v.input_shape(0)) : Tensor(),
            v.needs(1) ? sum_to(u * v.output() * log(a), v.input_shape(1)) : Tensor()};
  }
  Saved saved() const override { return {.inputs = {0, 1}, .outputs = {0}}; }
};

}  // namespace

Tensor pow(const Tensor& x, double exponent) { return apply_op(ConstantPow{exponent}, {x}); }
Tensor pow(const Tensor& a, const Tensor& b) { return apply_op(Pow{}, {a, b}); }

std::vector<Sample> pow_samples() {
  const Tensor x = sample_tensor({3, 4}), positive = sample_positive({3, 4});
  const auto f = [](const Tensors& t) { return pow(t[0], t[1]); };
  return {{"(3,4) ^ 3", [](const Tensors& t) { return pow(t[0], 3.0); }, {x}},
          {"(3,4) ^ 1", [](const Tensors& t) { return pow(t[0], 1.0); }, {x}},
          {"(3,4) ^ 0", [](const Tensors& t) { return pow(t[0], 0.0); }, {x}},
          {"(3,4) ^ -0.7", [](const Tensors& t) { return pow(t[0], -0.7); }, {positive}},
          {"(3,4) ^ (3,4)", f, {positive, sample_tensor({3, 4}, 1)}},
          {"(3,1) ^ (2,1,4)", f, {sample_positive({3, 1}, 1), sample_tensor({2, 1, 4}, 2)}}};
}

}  // namespace stairgrad
