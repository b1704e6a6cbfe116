// An element that the drop left alone is recognised in the backward by y == x. If x lies exactly on a level,
// y is x either way, and so is the gradient: LSQ's for the step has the factor code - x / step = 0.
#include "drop.h"

#include <cmath>

#include "../../autograd/ops.h"
#include "../../kernels/simd/simd.h"
#include "../../kernels/threads.h"
#include "../quantizer.h"
#include "../quantizers/backward.h"
#include "../quantizers/rounded.h"

namespace stairgrad::quant {

namespace baseline {
void enter_reconstruction(ReconstructionTable&);
}
#ifdef STAIRGRAD_X86
namespace avx2 {
void enter_reconstruction(ReconstructionTable&);
}
namespace avx512 {
void enter_reconstruction(ReconstructionTable&);
}
#endif

namespace {

ReconstructionTable filled(void (*enter)(ReconstructionTable&)) {
  ReconstructionTable table;
  enter(table);
  return table;
}

constexpr int64_t grain = 16384;  // elements; a multiple of 16

bool is_chosen(const Choice& c, int64_t i) {
  const auto word =
      Philox(c.seed, c.stream).words(static_cast<uint64_t>(i / 16))[static_cast<size_t>(i % 16 / 4)];
  return static_cast<int>(word >> (8 * (i % 4)) & 255) < c.keep;
}

Array dropped(const Array& x, const Grid& grid, const Choice& choice, int64_t mixed) {
  if (x.dtype() == DType::f64) {
    Array y = fake_quantize(x, {grid});
    for (int64_t i = 0; i < mixed; ++i)
      if (!is_chosen(choice, i)) y.data<double>()[i] = x.data<double>()[i];
    return y;
  }
  Array y(x.shape());
  const float* from = x.data<float>();
  float* to = y.data<float>();
  const float inverse = grid::inverse(grid.scale);
  const auto drop = reconstruction_table().drop;
  parallel_for(mixed, grain,
               [&](int64_t b, int64_t e) { drop(from + b, to + b, b, e - b, choice, grid, inverse); });
  const auto quantize = simd::table().grid.fake_quantize;
  parallel_for(x.size() - mixed, grain, [&](int64_t b, int64_t e) {
    quantize(from + mixed + b, to + mixed + b, e - b, grid, inverse);
  });
  return y;
}

// Outputs: dx and the gradient of the step.
struct DropBackward final : Op {
  Grid grid;

  explicit DropBackward(const Grid& grid) : grid(grid) {}
  std::string_view name() const override { return "drop_backward"; }
  Arrays forward(const Arrays& in) const override {  // u, x, y, step
    const RoundedSums s = rounded_sums(in[0], in[1], in[3], grid, in[2]);
    const Array step =
        step_gradient({{}, Tensor(s.rounding), Tensor(s.below), Tensor(s.above)}, grid).value();
    return {s.x, step};
  }
  Tensors decompose(const Tensors& in) const override {
    const Tensor kept = 1 - equal(in[1], in[2]);
    const RoundedGradients s = rounded_backward(in[0] * kept, in[1], in[3], grid);
    return {s.x + in[0] * (1 - kept), step_gradient(s, grid)};
  }
  Tensors vjp(const Vjp& v) const override { return vjp_by_decomposition(*this, v); }
  Saved saved() const override { return {.inputs = {0, 1, 2, 3}}; }
};

struct Drop final : QuantizeOp {
  Choice choice;
  int64_t images;

  Drop(const Grid& grid, const Choice& choice, int64_t images)
      : QuantizeOp({grid}), choice(choice), images(images) {}
  std::string_view name() const override { return "drop"; }
  Arrays forward(const Arrays& in) const override {
    const int64_t all = in[0].rank() ? in[0].dim(0) : 1;
    return {
        dropped(in[0], grids[0], choice, in[0].size() / std::max<int64_t>(1, all) * std::min(images, all))};
  }
  Tensors vjp(const Vjp& v) const override {
    return stairgrad::apply(std::make_shared<const DropBackward>(grids[0]),
                            {v.grad(), v.input(0), v.output(0), v.input(1)});
  }
  Saved saved() const override { return {.inputs = {0, 1}, .outputs = {0}}; }
};

// sum (a - b)^2 * scale, in one pass each way.
struct SquaredDistance final : Op {
  double scale;

  explicit SquaredDistance(double scale) : scale(scale) {}
  std::string_view name() const override { return "squared_distance"; }
  Arrays forward(const Arrays& in) const override {
    const float *a = in[0].data<float>(), *b = in[1].data<float>();
    const int64_t n = in[0].size();
    std::vector<double> parts(static_cast<size_t>((n + grain - 1) / grain));
    parallel_for(n, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i += grain)
        parts[static_cast<size_t>(i / grain)] =
            reconstruction_table().squared_distance(a + i, b + i, std::min(grain, end - i));
    });
    double sum = 0;
    for (const double part : parts) sum += part;
    return {Array::scalar(sum * scale)};
  }
  Tensors decompose(const Tensors& in) const override { return {sum(square(in[0] - in[1])) * scale}; }
  Tensors vjp(const Vjp& v) const override;
  Saved saved() const override { return {.inputs = {0, 1}}; }
};

// u (a - b) factor.
struct ScaledDifference final : Op {
  double factor;

  explicit ScaledDifference(double factor) : factor(factor) {}
  std::string_view name() const override { return "scaled_difference"; }
  Arrays forward(const Arrays& in) const override {
    Array y(in[1].shape());
    const float *a = in[1].data<float>(), *b = in[2].data<float>();
    float* to = y.data<float>();
    const auto by = static_cast<float>(in[0].item() * factor);
    parallel_for(y.size(), grain, [&](int64_t begin, int64_t end) {
      reconstruction_table().scaled_difference(a + begin, b + begin, to + begin, end - begin, by);
    });
    return {y};
  }
  Tensors decompose(const Tensors& in) const override { return {(in[1] - in[2]) * (in[0] * factor)}; }
  Tensors vjp(const Vjp& v) const override { return vjp_by_decomposition(*this, v); }
  Saved saved() const override { return {.inputs = {0, 1, 2}}; }
};

Tensors SquaredDistance::vjp(const Vjp& v) const {
  const auto difference = [&](int a, int b) {
    return v.needs(a) ? apply_op(ScaledDifference(2 * scale), {v.grad(), v.input(a), v.input(b)}) : Tensor();
  };
  return {difference(0, 1), difference(1, 0)};
}

}  // namespace

const ReconstructionTable& reconstruction_table() {
  const simd::Table* used = &simd::table();
#ifdef STAIRGRAD_X86
  static const ReconstructionTable wide = filled(avx512::enter_reconstruction),
                                   narrow = filled(avx2::enter_reconstruction);
  if (used == simd::table_of(simd::Isa::avx512)) return wide;
  if (used == simd::table_of(simd::Isa::avx2)) return narrow;
#endif
  static const ReconstructionTable plain = filled(baseline::enter_reconstruction);
  return plain;
}

Choice chosen(double keep, uint64_t seed, uint64_t stream) {
  check(keep >= 0 && keep <= 1, "[drop] got the probability ", keep, ", expected 0 .. 1");
  return {seed, stream, static_cast<int>(std::lround(keep * 256))};
}

Array mix(const Array& a, const Array& b, const Choice& choice) {
  check(a.shape() == b.shape(), "[mix] got the shapes ", a.shape(), " and ", b.shape(),
        ", expected equal ones");
  if (choice.keep == 256) return a;
  if (choice.keep == 0) return b;
  Array y(a.shape());
  const float *from = a.data<float>(), *other = b.data<float>();
  float* to = y.data<float>();
  parallel_for(y.size(), grain, [&](int64_t begin, int64_t end) {
    reconstruction_table().mix(from + begin, other + begin, to + begin, begin, end - begin, choice);
  });
  return y;
}

Tensor quantize_with_drop(const Tensor& x, const Tensor& step, const Grid& grid, const Choice& choice,
                          int64_t images) {
  return apply_op(Drop(grid, choice, images), {x, step});
}

Tensor drop_surrogate(const Tensor& x, const Tensor& step, const Array& at, const Array& at_step,
                      const Grid& grid, const Choice& choice, int64_t images) {
  const RoundedPoint p = rounded_at(at, at_step, grid);
  const Tensor quantized =
      where(p.inside, x + step * (p.code - p.position), step * (p.code - grid.zero_point));
  Array mask = Array::full(at.shape(), 1, at.dtype());
  const int64_t size = at.size() / std::max<int64_t>(1, at.rank() ? at.dim(0) : 1);
  for (int64_t i = 0; i < std::min(at.size(), images * size); ++i)
    if (!is_chosen(choice, i)) mask.data<double>()[i] = 0;
  return where(Tensor(mask), quantized, x);
}

Tensor reconstruction_loss(const Tensor& a, const Array& target) {
  check(a.shape() == target.shape(), "[reconstruction_loss] got the shapes ", a.shape(), " and ",
        target.shape(), ", expected equal ones");
  const double scale = static_cast<double>(a.dim(-1)) / static_cast<double>(a.size());
  if (a.dtype() != DType::f32) return sum(square(a - Tensor(target))) * scale;
  return apply_op(SquaredDistance(scale), {a, Tensor(target)});
}

}  // namespace stairgrad::quant
