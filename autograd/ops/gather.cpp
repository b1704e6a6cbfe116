// Gather picks x[i..., index[i..., j]] along the last axis, and its adjoint, scatter_add, adds to those
// places: each is the other's vjp.
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Gather final : Op {
  std::string_view name() const override { return "gather"; }
  Arrays forward(const Arrays& in) const override { return {kernels::gather(in[0], in[1])}; }
  Tensors vjp(const Vjp& v) const override {
    return {scatter_add(v.grad(), v.input(1), v.input_shape(0).back())};
  }
  Saved saved() const override { return {.inputs = {1}}; }
};

struct ScatterAdd final : Op {
  int64_t size;

  explicit ScatterAdd(int64_t size) : size(size) {}
  std::string_view name() const override { return "scatter_add"; }
  Arrays forward(const Arrays& in) const override { return {kernels::scatter_add(in[0], in[1], size)}; }
  Tensors vjp(const Vjp& v) const override { return {gather(v.grad(), v.input(1))}; }
  Saved saved() const override { return {.inputs = {1}}; }
};

}  // namespace

Tensor gather(const Tensor& x, const Tensor& index) { return apply_op(Gather{}, {x, index}); }

Tensor scatter_add(const Tensor& x, const Tensor& index, int64_t size) {
  return apply_op(ScatterAdd{size}, {x, index});
}

std::vector<Sample> gather_samples() {
  const Array index = Array::of<int32_t>({3, 0, 3, 1, 1, 2}, {2, 3});
  return {{"gather (2,4) at (2,3)",
           [=](const Tensors& t) { return gather(t[0], index); },
           {sample_tensor({2, 4})}},
          {"scatter_add (2,3) into 4",
           [=](const Tensors& t) { return scatter_add(t[0], index, 4); },
           {sample_tensor({2, 3})}}};
}

}  // namespace stairgrad
