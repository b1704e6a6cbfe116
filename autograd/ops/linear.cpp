// y = x w^T + b. vjp: (u w, u^T x, sum of u over all rows). With bf16 x the products and sums are taken in
// f32.
#include "linear.h"

#include "../../kernels/elementwise.h"
#include "../../kernels/gemm.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

template <class T>
T as_rows(const T& x) {
  return x.reshape({x.size() / std::max<int64_t>(1, x.shape().back()), x.shape().back()});
}

}  // namespace

Arrays LinearOp::forward(const Arrays& in) const {
  const Array &x = in[0], &weights = in[1];
  const Array y = kernels::matmul(stairgrad::cast(x, weights.dtype()), weights, false, true);
  return {stairgrad::cast(in.size() == 3 ? kernels::binary(kernels::Binary::add, y, in[2]) : y, x.dtype())};
}

Tensors LinearOp::vjp(const Vjp& v) const {
  const Tensor &x = v.input(0), &weights = v.input(1);
  const auto rows = [&](const Tensor& t) {
    const int64_t columns = t.shape().back();
    return reshape(cast(t, weights.dtype()), {x.size() / std::max<int64_t>(1, x.shape().back()), columns});
  };
  const Tensor u = rows(v.grad());
  Tensors gradients(static_cast<size_t>(v.inputs()));
  if (v.needs(0)) gradients[0] = cast(reshape(matmul(u, weights), x.shape()), x.dtype());
  if (v.needs(1)) gradients[1] = matmul(u, rows(x), true, false);
  if (v.inputs() == 3 && v.needs(2)) gradients[2] = sum(u, {0});
  return gradients;
}

Tensor linear(const Tensor& x, const Tensor& weights, const Tensor& bias) {
  check(x.rank() >= 1 && weights.rank() == 2 && x.shape().back() == weights.dim(1), "[linear] got x ",
        x.shape(), " and weights ", weights.shape(), ", expected (..., in) and (out, in)");
  const bool mixed = x.dtype() == DType::bf16 && weights.dtype() == DType::f32;
  check(x.dtype() == weights.dtype() || mixed, "[linear] got x of type ", name_of(x.dtype()),
        " and weights of type ", name_of(weights.dtype()), ", expected one type, or bf16 with f32 weights");
  if (!bias.defined()) return apply_op(LinearOp{}, {x, weights});
  check(bias.shape() == Shape{weights.dim(0)} && bias.dtype() == weights.dtype(), "[linear] bias: got ",
        name_of(bias.dtype()), bias.shape(), ", expected ", name_of(weights.dtype()), Shape{weights.dim(0)},
        " because weights are ", weights.shape());
  return apply_op(LinearOp{}, {x, weights, bias});
}

std::vector<Sample> linear_samples() {
  const auto f = [](const Tensors& t) { return linear(t[0], t[1], t.size() == 3 ? t[2] : Tensor()); };
  const Tensor w = sample_tensor({5, 3}, 2), b = sample_tensor({5}, 3);
  return {{"(4,3) (5,3) (5)", f, {sample_tensor({4, 3}, 1), w, b}},
          {"(4,3) (5,3)", f, {sample_tensor({4, 3}, 1), w}},
          {"(2,4,3) (5,3) (5)", f, {sample_tensor({2, 4, 3}, 1), w, b}},
          {"(1,1) (1,1) (1)", f, {sample_tensor({1, 1}, 1), sample_tensor({1, 1}, 2), sample_tensor({1}, 3)}},
          {"(0,3) (5,3) (5)", f, {sample_tensor({0, 3}, 1), w, b}}};
}

}  // namespace stairgrad
