#include "straight_through.h"

#include <cmath>

#include "../../autograd/ops.h"
#include "backward.h"

namespace stairgrad::quant {
namespace {

// Linear in the gradient, so its vjp is itself.
struct PassWithin final : Op {
  Ranges ranges;

  explicit PassWithin(Ranges ranges) : ranges(std::move(ranges)) {}
  std::string_view name() const override { return "pass_within"; }
  Arrays forward(const Arrays& in) const override { return {pass_within(in[0], in[1], ranges)}; }
  Tensors vjp(const Vjp& v) const override {
    return {v.needs(0) ? apply_op(PassWithin(ranges), {v.grad(), v.input(1)}) : Tensor(),
            v.needs(1) ? Array::zeros(v.input_shape(1), v.input_dtype(1)) : Tensor()};
  }
  Saved saved() const override { return {.inputs = {1}}; }
};

}  // namespace

Tensors StraightThroughOp::vjp(const Vjp& v) const {
  return {apply_op(PassWithin(pass), {v.grad(), v.input(0)})};
}

Tensor straight_through_surrogate(const Tensor& x, const Array& at, const Grids& grids, const Ranges& pass) {
  const Tensor passed = pass_within(Array::full(at.shape(), 1, at.dtype()), at, pass);
  return fake_quantize(at, grids) + passed * (x - at);
}

Ranges rounded_range(const Grids& grids) {
  Ranges ranges;
  for (const Grid& g : grids) {
    const double scale = g.scale, zero = g.zero_point;
    ranges.push_back({(g.lo - zero - 0.5) * scale, (g.hi - zero + 0.5) * scale});
  }
  return ranges;
}

Ranges everything(size_t grids) { return Ranges(grids, {-HUGE_VAL, HUGE_VAL}); }

}  // namespace stairgrad::quant
