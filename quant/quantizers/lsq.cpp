// Learned step size quantization (Esser et al., ICLR'20): one learned scale for each grid.
//
// Deviations: 8-bit weights use -127 .. 127; 1-bit weights, of which the paper has none, are -s/2, s/2;
// activations that can be negative are codes 0 .. 2^b - 1 with the zero point 2^(b-1), which are the paper's
// levels.
#include <algorithm>
#include <cmath>

#include "../../autograd/ops.h"
#include "../../kernels/elementwise.h"
#include "../quantizer.h"
#include "backward.h"
#include "ranges.h"

namespace stairgrad::quant {
namespace {

// dx = u inside the grid; dscale = u (code - x / scale) inside, u code at the ends (eq. 3 and 5).
struct LsqBackward final : Op {
  Grid codes;
  double scale;  // of the gradient of the step size

  LsqBackward(const Grid& codes, double scale) : codes(codes), scale(scale) {}
  std::string_view name() const override { return "lsq_backward"; }
  Arrays forward(const Arrays& in) const override {
    const LsqGradients g = lsq_backward(in[0], in[1], in[2], codes);
    return {g.x, kernels::affine(g.scale, scale, 0)};
  }
  Tensors decompose(const Tensors& in) const override {
    const DType wide = in[2].dtype();  // of the parameter, also if x is bf16
    const Tensor gradient = cast(in[0], wide), x = cast(in[1], wide), step = spread(in[2], x.rank());
    const Tensor low = Array::full(x.shape(), codes.lo, x.dtype()),
                 high = Array::full(x.shape(), codes.hi, x.dtype());
    const Tensor p = x / step + codes.zero_point;
    const Tensor inside = greater(p, low) * greater(high, p);
    const Tensor code = round(minimum(maximum(p, low), high));
    const Tensor term = gradient * (code - codes.zero_point - inside * (p - codes.zero_point));
    return {cast(gradient * inside, in[1].dtype()), reshape(sum_to(term, step.shape()), in[2].shape()) * scale};
  }
  Tensors vjp(const Vjp& v) const override { return vjp_by_decomposition(*this, v); }
  Saved saved() const override { return {.inputs = {0, 1, 2}}; }
  bool mixed_types() const override { return true; }
};

struct LsqOp final : QuantizeOp {
  double scale;

  LsqOp(Grids grids, double scale) : QuantizeOp(std::move(grids)), scale(scale) {}
  std::string_view name() const override { return "lsq"; }
  Tensors vjp(const Vjp& v) const override {
    return stairgrad::apply(std::make_shared<const LsqBackward>(grids[0], scale),
                            {v.grad(), v.input(0), v.input(1)});
  }
  Saved saved() const override { return {.inputs = {0, 1}}; }
};

class Lsq final : public Quantizer {
 public:
  Lsq(const QuantizerOptions& options, int64_t channels)
      : Quantizer(options, channels), min_scale_(add_buffer("min_scale", {groups()})) {
    declare("scale");
  }

  Grids grids(const Arrays& parameters) const override {
    Grids all;
    for (const double scale : parameters[0].to_vector()) {
      all.push_back(codes());
      all.back().scale = static_cast<float>(std::max(scale, smallest_range / 255));
    }
    return all;
  }

  Tensor apply(const Tensors& in) const override {
    return quantize(LsqOp(grids({in[1].value()}), gradient_scale(in[0].shape(), positive())), in);
  }

  Tensor surrogate(const Tensors& in, const Arrays& at) const override {
    const Tensor &x = in[0], step = spread(in[1], x.rank());
    const Tensor low = Array::full(x.shape(), codes().lo, x.dtype());
    const Tensor high = Array::full(x.shape(), codes().hi, x.dtype());
    const double zero = codes().zero_point;
    const Tensor p = Tensor(at[0]) / spread(at[1], x.rank()) + zero;
    const Tensor inside = greater(p, low) * greater(high, p);
    const Tensor code = round(minimum(maximum(p, low), high));
    return where(inside, x + step * (code - p), step * (code - zero));
  }

  void project() override {
    std::vector<double> scale = values(0);
    const std::vector<double> smallest = min_scale_.to_vector();
    for (size_t g = 0; g < scale.size(); ++g) scale[g] = std::max(scale[g], smallest[g]);
    set_values(0, scale);
  }

 private:
  Grid codes() const {
    const int bits = options().bits, half = 1 << (bits - 1);
    if (!options().weight) return {1, is_signed() ? static_cast<float>(half) : 0.0f, 0, 2 * half - 1};
    if (bits == 1) return {1, 0.5f, 0, 1};
    return {1, 0, bits == 8 ? -127 : -half, half - 1};
  }
  /// Q_P of the paper: the largest code above zero.
  int positive() const { return std::max(1, codes().hi - static_cast<int>(codes().zero_point)); }

  // 2 <|x|> / sqrt(Q_P) (2.1)
  void choose(const Array& x) override {
    std::vector<double> scale, smallest;
    for (const Statistics& s : statistics(x, groups())) {
      scale.push_back(std::max(2 * s.mean_abs / std::sqrt(positive()), smallest_range / 255));
      smallest.push_back(std::max(1e-3 * scale.back(), smallest_range / 255));
    }
    set_values(0, scale);
    min_scale_.assign(cast(Array::of(smallest), min_scale_.dtype()));
  }

  Array& min_scale_;
};

}  // namespace

QuantizerEntry lsq_entry() {
  return {[](const QuantizerOptions& options, int64_t channels) {
            return std::make_shared<Lsq>(options, channels);
          },
          {},
          "Esser et al., ICLR'20; learns the step"};
}

}  // namespace stairgrad::quant
