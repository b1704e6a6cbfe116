// d/dx of mean and variance over N elements: (u_mean + 2 u_var (x - mean)) / N, an affine map of each
// channel, which is a batch norm with given statistics.
#include "moments.h"

#include "../autograd/ops.h"
#include "../kernels/norm.h"

namespace stairgrad::quant {
namespace {

struct BatchMomentsOp final : Op {
  std::string_view name() const override { return "batch_moments"; }
  Arrays forward(const Arrays& in) const override {
    kernels::BatchStatistics s = kernels::batch_statistics(in[0]);
    return {s.mean, s.var};
  }
  bool mixed_types() const override { return true; }
  Saved saved() const override { return {.inputs = {0}, .outputs = {0}}; }
  Tensors vjp(const Vjp& v) const override {
    const Tensor& x = v.input(0);
    const Shape channels{x.shape().back()};
    const double n = static_cast<double>(x.size()) / static_cast<double>(channels[0]);
    const DType type = v.output(0).dtype();
    const Tensor gain = v.grad(1) * (2 / n), offset = v.grad(0) / n - gain * v.output(0);
    return {batch_norm_eval(x, gain, offset, Array::zeros(channels, type), Array::full(channels, 1, type),
                            {.eps = 0})};
  }
};

}  // namespace

Moments batch_moments(const Tensor& x) {
  check(x.rank() > 0 && x.size() > 0, "[batch_moments] got ", x.shape(), ", expected elements to average");
  const Tensors moments = stairgrad::apply(std::make_shared<const BatchMomentsOp>(), {x});
  return {moments[0], moments[1]};
}

Moments image_moments(const Tensor& x) {
  check(x.rank() == 4 && x.size() > 0, "[image_moments] got ", x.shape(), ", expected images (n, h, w, c)");
  const Tensor wide = x.dtype() == DType::bf16 ? cast(x, DType::f32) : x;
  const int64_t correction = x.dim(1) * x.dim(2) > 1 ? 1 : 0;
  return {mean(wide, {1, 2}), var(wide, {1, 2}, /*keep_axes=*/false, correction)};
}

}  // namespace stairgrad::quant
