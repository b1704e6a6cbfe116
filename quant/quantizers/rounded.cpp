#include "rounded.h"

#include "../../autograd/ops.h"
#include "backward.h"
#include "ranges.h"

namespace stairgrad::quant {
namespace {

struct RoundedBackward final : Op {
  Grid codes;

  explicit RoundedBackward(const Grid& codes) : codes(codes) {}
  std::string_view name() const override { return "rounded_backward"; }
  Arrays forward(const Arrays& in) const override {
    const RoundedSums g = rounded_sums(in[0], in[1], in[2], codes);
    return {g.x, g.rounding, g.below, g.above};
  }
  Tensors decompose(const Tensors& in) const override {
    const DType wide = in[2].dtype();  // of the scales, also if x is bf16
    const Tensor u = cast(in[0], wide), x = cast(in[1], wide), step = spread(in[2], x.rank());
    const Tensor low = Array::full(x.shape(), codes.lo, wide), high = Array::full(x.shape(), codes.hi, wide);
    const Tensor p = x / step + codes.zero_point;
    const Tensor under = greater(p, low), above = greater_equal(p, high), inside = under * (1 - above);
    const auto total = [&](const Tensor& terms) {
      return reshape(sum_to(terms, step.shape()), in[2].shape());
    };
    return {cast(u * inside, in[1].dtype()), total(u * inside * (round(p) - p)), total(u * (1 - under)),
            total(u * above)};
  }
  Tensors vjp(const Vjp& v) const override { return vjp_by_decomposition(*this, v); }
  Saved saved() const override { return {.inputs = {0, 1, 2}}; }
  bool mixed_types() const override { return true; }
};

}  // namespace

RoundedGradients rounded_backward(const Tensor& u, const Tensor& x, const Tensor& scale, const Grid& codes) {
  const Tensors g = stairgrad::apply(std::make_shared<const RoundedBackward>(codes), {u, x, scale});
  return {g[0], g[1], g[2], g[3]};
}

Tensor step_gradient(const RoundedGradients& sums, const Grid& g) {
  return sums.rounding + sums.below * (g.lo - g.zero_point) + sums.above * (g.hi - g.zero_point);
}

Tensors LearnedStepOp::vjp(const Vjp& v) const {
  const RoundedGradients sums = rounded_backward(v.grad(), v.input(0), v.input(1), grids[0]);
  return {sums.x, step_gradient(sums, grids[0]) * scale};
}

RoundedPoint rounded_at(const Array& x, const Array& scale, const Grid& codes) {
  const Tensor low = Array::full(x.shape(), codes.lo, x.dtype());
  const Tensor high = Array::full(x.shape(), codes.hi, x.dtype());
  const Tensor p = Tensor(x) / spread(scale, x.rank()) + codes.zero_point;
  const Tensor above = greater_equal(p, high);
  return {greater(p, low) * (1 - above), above, round(minimum(maximum(p, low), high)), p};
}

}  // namespace stairgrad::quant
