// DoReFa-Net (Zhou et al., 2016). Weights: tanh(w) / max|tanh(w)|, rounded on [-1, 1] (eq. 9); with 1 bit
// sign(w) E|w| (eq. 7). Activations: clipped to [0, 1] and rounded (eq. 11). Gradients pass straight through
// the rounding.
//
// Deviations: 8-bit weights have 254 intervals instead of 255; activations with negative values, which the
// paper has none of, are clipped to [-1, 1]; the end of the clip is the setting `clip`; E|w| and max|tanh(w)|
// may be those of an output channel.
#include "../../autograd/ops.h"
#include "ranges.h"
#include "straight_through.h"

namespace stairgrad::quant {
namespace {

class Dorefa final : public Quantizer {
 public:
  Dorefa(const QuantizerOptions& options, int64_t channels)
      : Quantizer(options, channels),
        clip_(options.settings.number("clip")),
        binary_(options.weight && options.bits == 1),
        u_(add_buffer("u", {groups()})) {}

  QuantizerTraits traits() const override {
    return {.learned = false, .follows = options().weight, .scales = binary_};
  }

  Grids grids(const Arrays&) const override {
    Grids all;
    for (const double u : u_.to_vector())
      all.push_back(symmetric() ? symmetric_grid(u, options().bits)
                                : zero_grid(is_signed() ? -u : 0, u, options().bits));
    return all;
  }

  Tensor transform(const Tensor& x) const override {
    if (!options().weight || binary_) return x;
    const Tensor t = reshape(tanh(x), {groups(), x.size() / groups()});
    const Tensor largest = max(abs(t), {1}, true);
    return reshape(t / maximum(largest, Array::full(largest.shape(), smallest_range, x.dtype())), x.shape());
  }

  Tensor apply(const Tensors& in) const override {
    const Grids on = grids({});
    return quantize(StraightThroughOp(on, pass(on)), in);
  }
  Tensor surrogate(const Tensors& in, const Arrays& at) const override {
    const Grids on = grids({});
    return straight_through_surrogate(in[0], at[0], on, pass(on));
  }

 private:
  Ranges pass(const Grids& on) const {
    if (options().weight) return everything(on.size());
    return {{is_signed() ? -clip_ : 0, clip_}};
  }
  void choose(const Array& x) override {
    std::vector<double> u(static_cast<size_t>(groups()), options().weight ? 1 : clip_);
    if (binary_)
      for (size_t g = 0; const Statistics& s : statistics(x, groups())) u[g++] = s.mean_abs;
    u_.assign(cast(Array::of(u), u_.dtype()));
  }
  void observe(const Array& x) override {
    if (binary_) choose(x);
  }

  double clip_;
  bool binary_;
  Array& u_;
};

}  // namespace

QuantizerEntry dorefa_entry() {
  return {[](const QuantizerOptions& options, int64_t channels) {
            return std::make_shared<Dorefa>(options, channels);
          },
          {SettingRule::number("clip", 1, 0.01, 100)},
          "Zhou et al., 2016; weights by tanh, activations clipped"};
}

}  // namespace stairgrad::quant
