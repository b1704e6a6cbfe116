#include "conv2d.h"

#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

// W(src, diff_dst) for the weights at input 1, in their type: f32, unless they are bf16 themselves.
Tensor weights_gradient(const Tensor& src, const Tensor& diff_dst, const Vjp& v,
                        const Conv2dOptions& options) {
  return cast(conv2d_backward_weights(src, diff_dst, v.input_shape(1), options), v.input_dtype(1));
}

struct BackwardData final : Op {
  Shape src_shape;
  Conv2dOptions options;

  BackwardData(const Shape& src_shape, const Conv2dOptions& options)
      : src_shape(src_shape), options(options) {}
  std::string_view name() const override { return "conv2d_backward_data"; }
  Arrays forward(const Arrays& in) const override {
    return {kernels::conv2d_backward_data(in[0], in[1], src_shape, options)};
  }
  Tensors vjp(const Vjp& v) const override {
    const Tensor u = v.grad();
    return {v.needs(0) ? conv2d(u, v.input(1), options) : Tensor(),
            v.needs(1) ? weights_gradient(u, v.input(0), v, options) : Tensor()};
  }
  Saved saved() const override { return {.inputs = {0, 1}}; }
  bool mixed_types() const override { return true; }
};

struct BackwardWeights final : Op {
  Shape weights_shape;
  Conv2dOptions options;

  BackwardWeights(const Shape& weights_shape, const Conv2dOptions& options)
      : weights_shape(weights_shape), options(options) {}
  std::string_view name() const override { return "conv2d_backward_weights"; }
  Arrays forward(const Arrays& in) const override {
    return {kernels::conv2d_backward_weights(in[0], in[1], weights_shape, options)};
  }
  Tensors vjp(const Vjp& v) const override {
    const Tensor u = v.grad();
    return {v.needs(0) ? conv2d_backward_data(v.input(1), u, v.input_shape(0), options) : Tensor(),
            v.needs(1) ? conv2d(v.input(0), u, options) : Tensor()};
  }
  Saved saved() const override { return {.inputs = {0, 1}}; }
  bool mixed_types() const override { return true; }
};

}  // namespace

Arrays Conv2dOp::forward(const Arrays& in) const { return {kernels::conv2d(in[0], in[1], options)}; }

Tensors Conv2dOp::vjp(const Vjp& v) const {
  const Tensor u = v.grad();
  return {v.needs(0) ? conv2d_backward_data(u, v.input(1), v.input_shape(0), options) : Tensor(),
          v.needs(1) ? weights_gradient(v.input(0), u, v, options) : Tensor()};
}

Tensor conv2d(const Tensor& src, const Tensor& weights, const Conv2dOptions& options) {
  kernels::conv2d_shape(src.shape(), weights.shape(), options);
  return apply_op(Conv2dOp(options), {src, weights});
}

Tensor conv2d_backward_data(const Tensor& diff_dst, const Tensor& weights, const Shape& src_shape,
                            const Conv2dOptions& options) {
  const Shape expected = kernels::conv2d_shape(src_shape, weights.shape(), options);
  check(diff_dst.shape() == expected, "[conv2d_backward_data] diff_dst: got ", diff_dst.shape(),
        ", expected ", expected, " because src is ", src_shape, " and weights are ", weights.shape());
  return apply_op(BackwardData(src_shape, options), {diff_dst, weights});
}

Tensor conv2d_backward_weights(const Tensor& src, const Tensor& diff_dst, const Shape& weights_shape,
                               const Conv2dOptions& options) {
  const Shape expected = kernels::conv2d_shape(src.shape(), weights_shape, options);
  check(diff_dst.shape() == expected, "[conv2d_backward_weights] diff_dst: got ", diff_dst.shape(),
        ", expected ", expected, " because src is ", src.shape(), " and weights are ", weights_shape);
  return apply_op(BackwardWeights(weights_shape, options), {src, diff_dst});
}

std::vector<Sample> conv2d_samples() {
  struct Case {
    Shape src, weights;
    Conv2dOptions options;
  };
  const std::vector<Case> cases = {
      {{2, 5, 4, 3}, {4, 3, 3, 3}, Conv2dOptions::with(1, 1)},
      {{1, 5, 6, 4}, {6, 3, 3, 2}, Conv2dOptions::with(2, 1, 2)},
      {{2, 4, 4, 3}, {3, 3, 3, 1}, Conv2dOptions::with(1, 1, 3)},
      {{2, 3, 3, 5}, {2, 1, 1, 5}, Conv2dOptions::with(1, 0)},
      {{1, 6, 7, 2}, {3, 3, 2, 2}, {{2, 1}, {0, 1, 1, 0}, {1, 2}, 1}},
      {{1, 1, 1, 1}, {1, 1, 1, 1}, {}},
  };
  std::vector<Sample> samples;
  for (const Case& c : cases) {
    const Shape dst = kernels::conv2d_shape(c.src, c.weights, c.options);
    const Tensor x = sample_tensor(c.src, 1), w = sample_tensor(c.weights, 2), g = sample_tensor(dst, 3);
    const std::string label =
        text(c.src, '*', c.weights, " stride ", c.options.stride[0], " groups ", c.options.groups);
    samples.push_back(
        {"C " + label, [o = c.options](const Tensors& t) { return conv2d(t[0], t[1], o); }, {x, w}});
    samples.push_back(
        {"D " + label,
         [o = c.options, s = c.src](const Tensors& t) { return conv2d_backward_data(t[0], t[1], s, o); },
         {g, w}});
    samples.push_back({"W " + label,
                       [o = c.options, s = c.weights](const Tensors& t) {
                         return cast(conv2d_backward_weights(t[0], t[1], s, o), t[0].dtype());
                       },
                       {x, g}});
  }
  return samples;
}

}  // namespace stairgrad
