// Mean of each plane, and its adjoint: each is the other's vjp.
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct GlobalAvgPool final : Op {
  std::string_view name() const override { return "global_avg_pool"; }
  Arrays forward(const Arrays& in) const override { return {kernels::global_avg_pool(in[0])}; }
  Tensors vjp(const Vjp& v) const override { return {global_avg_pool_backward(v.grad(), v.input_shape(0))}; }
};

struct Backward final : Op {
  Shape src_shape;

  explicit Backward(const Shape& src_shape) : src_shape(src_shape) {}
  std::string_view name() const override { return "global_avg_pool_backward"; }
  Arrays forward(const Arrays& in) const override {
    return {kernels::global_avg_pool_backward(in[0], src_shape)};
  }
  Tensors vjp(const Vjp& v) const override { return {global_avg_pool(v.grad())}; }
};

}  // namespace

Tensor global_avg_pool(const Tensor& x) {
  check(x.rank() == 4 && x.dim(1) * x.dim(2) > 0, "[global_avg_pool] got the shape ", x.shape(),
        ", expected (n, h, w, c) with a plane that is not empty");
  return apply_op(GlobalAvgPool{}, {x});
}

Tensor global_avg_pool_backward(const Tensor& diff_y, const Shape& src_shape) {
  const Shape expected{src_shape[0], 1, 1, src_shape[3]};
  check(diff_y.shape() == expected, "[global_avg_pool_backward] diff_y: got ", diff_y.shape(), ", expected ",
        expected, " because src is ", src_shape);
  return apply_op(Backward{src_shape}, {diff_y});
}

std::vector<Sample> global_avg_pool_samples() {
  const auto f = [](const Tensors& t) { return global_avg_pool(t[0]); };
  return {{"(2,3,4,5)", f, {sample_tensor({2, 3, 4, 5})}},
          {"(1,1,1,1)", f, {sample_tensor({1, 1, 1, 1})}},
          {"(0,2,2,3)", f, {sample_tensor({0, 2, 2, 3})}}};
}

}  // namespace stairgrad
