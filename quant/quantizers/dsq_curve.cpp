#include "dsq_curve.h"

#include "../../autograd/ops.h"
#include "../../kernels/elementwise.h"
#include "backward.h"
#include "ranges.h"

namespace stairgrad::quant {
namespace {

Tensor kappa_of(const Tensor& alpha) { return log(2 * pow(alpha, -1) - 1); }

struct DsqBackward final : Op {
  int intervals;
  bool soft;
  double scale;  // of the gradients of alpha, l and u

  DsqBackward(int intervals, bool soft, double scale) : intervals(intervals), soft(soft), scale(scale) {}
  std::string_view name() const override { return "dsq_backward"; }

  Arrays forward(const Arrays& in) const override {
    DsqGradients g = dsq_backward(in[0], in[1], in[2], in[3], in[4], intervals, soft);
    return {g.x, kernels::affine(g.alpha, scale, 0), kernels::affine(g.l, scale, 0),
            kernels::affine(g.u, scale, 0)};
  }

  // The closed forms, with codes and cells as constants.
  Tensors decompose(const Tensors& in) const override {
    const DType wide = in[2].dtype();  // of the parameters, also if x is bf16
    const Tensor gradient = cast(in[0], wide), x = cast(in[1], wide);
    const Tensor alpha = spread(in[2], x.rank()), l = spread(in[3], x.rank()), u = spread(in[4], x.rank());
    const Tensor zero = Array::zeros(x.shape(), x.dtype()),
                 end = Array::full(x.shape(), intervals, x.dtype());
    const Tensor smallest = Array::full(u.shape(), 1.0001 * smallest_range, x.dtype());

    const Tensor v = (x - l) / (maximum(u - l, smallest) / intervals);
    const Tensor inside = greater(v, zero) * greater(end, v);
    const Tensor live = inside * greater(u - l, smallest), counted = gradient * (1 - inside + live);
    const Tensor c = where(inside, v, where(greater(v, zero), end, zero));
    const Tensor cell = minimum(floor(c), end - 1), t = c - cell - 0.5;
    const Tensor kappa = kappa_of(alpha), s = pow(1 - alpha, -1), tanh = stairgrad::tanh(kappa * t);
    const Tensor slope = 0.5 * s * kappa * (1 - square(tanh));
    const Tensor dx = gradient * live * slope;
    const Tensor dalpha = gradient * live * (u - l) * (0.5 / intervals) *
                          (square(s) * tanh - 2 * s * t * (1 - square(tanh)) / (alpha * (2 - alpha)));
    const Tensor upper = (counted * (soft ? cell + 0.5 * (s * tanh + 1) : round(c)) - dx * c) / intervals;
    const Shape& parameters = in[2].shape();
    const auto total = [&](const Tensor& terms) {
      return reshape(sum_to(terms, u.shape()), parameters) * scale;
    };
    return {cast(dx, in[1].dtype()), total(dalpha), total(counted - dx - upper), total(upper)};
  }
  Tensors vjp(const Vjp& v) const override { return vjp_by_decomposition(*this, v); }
  Saved saved() const override { return {.inputs = {0, 1, 2, 3, 4}}; }
  bool mixed_types() const override { return true; }
};

}  // namespace

Tensors DsqOp::vjp(const Vjp& v) const {
  return stairgrad::apply(std::make_shared<const DsqBackward>(grids[0].hi - grids[0].lo, soft, scale),
                          {v.grad(), v.input(0), v.input(1), v.input(2), v.input(3)});
}

Tensor dsq_surrogate(const Tensors& in, const Tensors& at, int n, bool soft) {
  const Tensor& x = in[0];
  const auto phi = [](const Tensor& alpha, const Tensor& t) {
    const Tensor kappa = kappa_of(alpha);
    return tanh(kappa * t) / tanh(0.5 * kappa);
  };
  const auto full = [&](const Tensor& parameter) {
    return broadcast_to(spread(parameter, x.rank()), x.shape());
  };
  const Tensor alpha = full(in[1]), l = full(in[2]), u = full(in[3]), delta = (u - l) / n;

  // The cell, and what the hard code adds to the soft one, at the sample point.
  const Tensor l0 = full(at[2]), u0 = full(at[3]), v0 = (at[0] - l0) / ((u0 - l0) / n);
  const Tensor end = Array::full(x.shape(), n, x.dtype()), zero = Array::zeros(x.shape(), x.dtype());
  const Tensor above = greater_equal(v0, end), inside = greater(v0, zero) * (1 - above);
  const Tensor cell = minimum(floor(v0), end - 1);
  const Tensor soft0 = cell + 0.5 * (phi(full(at[1]), v0 - cell - 0.5) + 1);
  const Tensor offset = soft ? zero : round(v0) - soft0;

  const Tensor t = (x - l) / delta - cell - 0.5;
  const Tensor curve = l + delta * (cell + 0.5 * (phi(alpha, t) + 1) + offset);
  return where(inside, curve, where(above, u, l));
}

}  // namespace stairgrad::quant
