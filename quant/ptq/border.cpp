#include "border.h"

#include <algorithm>
#include <cmath>

#include "../../autograd/ops.h"
#include "../quantizer.h"

namespace stairgrad::quant {
namespace {

constexpr float softness = 0.1f;

// Where x lies: in the gap `gap`, `part` of the way up.
struct Place {
  float position;
  int gap;
  float part;
  bool inside;
  Place(float x, float inverse, const Grid& g)
      : position(x * inverse + g.zero_point),
        gap(std::clamp(static_cast<int>(std::floor(position)), 0, g.hi - 1)),
        part(position - static_cast<float>(gap)),
        inside(position > 0 && position < static_cast<float>(g.hi)) {}
  int code(const float* border) const {
    return inside ? gap + (part >= border[gap]) : position > 0 ? gap + 1 : 0;
  }
};

// Outputs: dx, dstep, dborder.
struct BorderBackward final : Op {
  Grid grid;

  explicit BorderBackward(const Grid& grid) : grid(grid) {}
  std::string_view name() const override { return "border_backward"; }
  Arrays forward(const Arrays& in) const override {  // u, x, step, border
    const float *u = in[0].data<float>(), *x = in[1].data<float>(), *border = in[3].data<float>();
    const float scale = in[2].data<float>()[0], inverse = grid::inverse(scale);
    Array dx(in[1].shape());
    double step = 0;
    std::vector<double> borders(static_cast<size_t>(grid.hi));
    for (int64_t i = 0; i < dx.size(); ++i) {
      const Place at(x[i], inverse, grid);
      const auto code = static_cast<float>(at.code(border));
      dx.data<float>()[i] = at.inside ? u[i] : 0;
      step += static_cast<double>(u[i] * (at.inside ? code - at.position : code - grid.zero_point));
      if (!at.inside) continue;
      const float soft = 1 / (1 + std::exp((border[at.gap] - at.part) / softness));
      borders[static_cast<size_t>(at.gap)] -=
          static_cast<double>(u[i] * scale * soft * (1 - soft) / softness);
    }
    return {dx, Array::of<float>({static_cast<float>(step)}), cast(Array::of(borders), DType::f32)};
  }
};

struct Border final : QuantizeOp {
  Grid grid;

  explicit Border(const Grid& grid) : QuantizeOp({}), grid(grid) {}
  std::string_view name() const override { return "border"; }
  int bits() const override { return grid::bits(grid); }
  Arrays forward(const Arrays& in) const override {
    Array y(in[0].shape());
    const float *x = in[0].data<float>(), *border = in[2].data<float>();
    const float inverse = grid::inverse(grid.scale);
    for (int64_t i = 0; i < y.size(); ++i)
      y.data<float>()[i] = grid::decode(Place(x[i], inverse, grid).code(border), grid);
    return {y};
  }
  Tensors vjp(const Vjp& v) const override {
    return stairgrad::apply(std::make_shared<const BorderBackward>(grid),
                            {v.grad(), v.input(0), v.input(1), v.input(2)});
  }
  Saved saved() const override { return {.inputs = {0, 1, 2}}; }
};

}  // namespace

Tensor quantize_with_border(const Tensor& x, const Tensor& step, const Tensor& border, const Grid& grid) {
  check(x.dtype() == DType::f32 && border.size() == grid.hi, "[border] got x ", name_of(x.dtype()), " and ",
        border.size(), " borders, expected f32 and ", grid.hi, ", one for each gap between codes");
  Grid now = grid;
  now.scale = static_cast<float>(step.item());
  return apply_op(Border(now), {x, step, border});
}

}  // namespace stairgrad::quant
