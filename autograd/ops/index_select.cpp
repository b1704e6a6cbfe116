// Index_select picks slices of x along an axis, and its adjoint, index_add, adds slices to those places: each
// is the other's vjp.
#include "../axes.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct IndexSelect final : Op {
  int axis;

  explicit IndexSelect(int axis) : axis(axis) {}
  std::string_view name() const override { return "index_select"; }
  Arrays forward(const Arrays& in) const override { return {kernels::index_select(in[0], axis, in[1])}; }
  Tensors vjp(const Vjp& v) const override {
    return {index_add(v.grad(), axis, v.input(1), v.input_shape(0)[axis])};
  }
  Saved saved() const override { return {.inputs = {1}}; }
};

struct IndexAdd final : Op {
  int axis;
  int64_t size;

  IndexAdd(int axis, int64_t size) : axis(axis), size(size) {}
  std::string_view name() const override { return "index_add"; }
  Arrays forward(const Arrays& in) const override { return {kernels::index_add(in[0], axis, in[1], size)}; }
  Tensors vjp(const Vjp& v) const override { return {index_select(v.grad(), axis, v.input(1))}; }
  Saved saved() const override { return {.inputs = {1}}; }
};

}  // namespace

Tensor index_select(const Tensor& x, int axis, const Tensor& index) {
  return apply_op(IndexSelect{resolve_axes("index_select", {axis}, x.rank())[0]}, {x, index});
}

Tensor index_add(const Tensor& x, int axis, const Tensor& index, int64_t size) {
  return apply_op(IndexAdd{resolve_axes("index_add", {axis}, x.rank())[0], size}, {x, index});
}

std::vector<Sample> index_select_samples() {
  const Array index = Array::of<int32_t>({2, 0, 2, 1});
  return {{"index_select (2,3,4) axis 1",
           [=](const Tensors& t) { return index_select(t[0], 1, index); },
           {sample_tensor({2, 3, 4})}},
          {"index_select (3,2) axis 0",
           [=](const Tensors& t) { return index_select(t[0], 0, index); },
           {sample_tensor({3, 2})}},
          {"index_add (2,4) axis -1 into 3",
           [=](const Tensors& t) { return index_add(t[0], -1, index, 3); },
           {sample_tensor({2, 4})}}};
}

}  // namespace stairgrad
