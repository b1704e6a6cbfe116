// Largest element of each window; ties: the first one. Pooling picks elements, so its vjp puts u back at
// their places (scatter) and picking at given places (gather) is that one's vjp: a closed pair with constant
// indices.
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Gather final : Op {
  std::string_view name() const override { return "max_pool2d_gather"; }
  Arrays forward(const Arrays& in) const override { return {kernels::max_pool2d_gather(in[0], in[1])}; }
  Tensors vjp(const Vjp& v) const override {
    return {max_pool2d_scatter(v.grad(), v.input(1), v.input_shape(0))};
  }
  Saved saved() const override { return {.inputs = {1}}; }
};

struct Scatter final : Op {
  Shape src_shape;

  explicit Scatter(const Shape& src_shape) : src_shape(src_shape) {}
  std::string_view name() const override { return "max_pool2d_scatter"; }
  Arrays forward(const Arrays& in) const override {
    return {kernels::max_pool2d_scatter(in[0], in[1], src_shape)};
  }
  Tensors vjp(const Vjp& v) const override { return {max_pool2d_gather(v.grad(), v.input(1))}; }
  Saved saved() const override { return {.inputs = {1}}; }
};

}  // namespace

Arrays MaxPool2dOp::forward(const Arrays& in) const {
  kernels::MaxPool pooled = kernels::max_pool2d(in[0], options);
  return {std::move(pooled.y), std::move(pooled.index)};
}

Tensors MaxPool2dOp::vjp(const Vjp& v) const {
  return {max_pool2d_scatter(v.grad(), v.output(1), v.input_shape(0))};
}

Tensor max_pool2d(const Tensor& x, const Pool2dOptions& options) {
  kernels::pool2d_shape(x.shape(), options);
  return apply_op(MaxPool2dOp(options), {x});
}

Tensor max_pool2d_gather(const Tensor& x, const Tensor& index) { return apply_op(Gather{}, {x, index}); }

Tensor max_pool2d_scatter(const Tensor& g, const Tensor& index, const Shape& src_shape) {
  check(g.shape() == index.shape(), "[max_pool2d_scatter] got the shapes ", g.shape(), " and ", index.shape(),
        ", expected equal ones");
  return apply_op(Scatter{src_shape}, {g, index});
}

std::vector<Sample> max_pool2d_samples() {
  const auto pool = [](const Pool2dOptions& options) {
    return [options](const Tensors& t) { return max_pool2d(t[0], options); };
  };
  return {{"(2,4,4,3) 2/2", pool(Pool2dOptions::with(2, 2)), {sample_distinct({2, 4, 4, 3})}},
          {"(1,5,6,2) 3/2 pad 1", pool(Pool2dOptions::with(3, 2, 1)), {sample_distinct({1, 5, 6, 2})}},
          {"(1,5,4,1) 3x2/1x2", pool({{3, 2}, {1, 2}, {1, 0}}), {sample_distinct({1, 5, 4, 1})}},
          {"(1,1,1,1) 1/1", pool(Pool2dOptions::with(1, 1)), {sample_distinct({1, 1, 1, 1})}},
          {"gather (1,3,3,2) at (1,2,1,2)",
           [](const Tensors& t) {
             return max_pool2d_gather(t[0], Array::of<int32_t>({4, 0, 8, 4}, {1, 2, 1, 2}));
           },
           {sample_tensor({1, 3, 3, 2})}}};
}

}  // namespace stairgrad
