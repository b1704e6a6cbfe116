// Mean of each window, and its adjoint: each is the other's vjp.
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Backward final : Op {
  Shape src_shape;
  Pool2dOptions options;

  Backward(const Shape& src_shape, const Pool2dOptions& options) : src_shape(src_shape), options(options) {}
  std::string_view name() const override { return "avg_pool2d_backward"; }
  Arrays forward(const Arrays& in) const override {
    return {kernels::avg_pool2d_backward(in[0], src_shape, options)};
  }
  Tensors vjp(const Vjp& v) const override { return {avg_pool2d(v.grad(), options)}; }
};

}  // namespace

Arrays AvgPool2dOp::forward(const Arrays& in) const { return {kernels::avg_pool2d(in[0], options)}; }

Tensors AvgPool2dOp::vjp(const Vjp& v) const {
  return {avg_pool2d_backward(v.grad(), v.input_shape(0), options)};
}

Tensor avg_pool2d(const Tensor& x, const Pool2dOptions& options) {
  kernels::pool2d_shape(x.shape(), options);
  return apply_op(AvgPool2dOp(options), {x});
}

Tensor avg_pool2d_backward(const Tensor& diff_y, const Shape& src_shape, const Pool2dOptions& options) {
  const Shape expected = kernels::pool2d_shape(src_shape, options);
  check(diff_y.shape() == expected, "[avg_pool2d_backward] diff_y: got ", diff_y.shape(), ", expected ",
        expected, " because src is ", src_shape);
  return apply_op(Backward{src_shape, options}, {diff_y});
}

std::vector<Sample> avg_pool2d_samples() {
  const auto pool = [](const Pool2dOptions& options) {
    return [options](const Tensors& t) { return avg_pool2d(t[0], options); };
  };
  return {{"(2,4,4,3) 2/2", pool(Pool2dOptions::with(2, 2)), {sample_tensor({2, 4, 4, 3})}},
          {"(1,5,6,2) 3/2 pad 1", pool(Pool2dOptions::with(3, 2, 1)), {sample_tensor({1, 5, 6, 2})}},
          {"(1,5,6,2) 3/2 pad 1, without padding",
           pool({{3, 3}, {2, 2}, {1, 1}, false}),
           {sample_tensor({1, 5, 6, 2})}},
          {"(1,5,4,1) 3x2/1x2", pool({{3, 2}, {1, 2}, {1, 0}}), {sample_tensor({1, 5, 4, 1})}},
          {"(1,1,1,1) 1/1", pool(Pool2dOptions::with(1, 1)), {sample_tensor({1, 1, 1, 1})}}};
}

}  // namespace stairgrad
