// The uniform quantizer with the straight-through gradient (Bengio et al., 2013): the range comes from the
// data, and gradients pass wherever a value is rounded, not saturated.
//
// Weights: [-max|w|, max|w|] of every call, on DSQ's grid. Activations: the extremes of the batches seen in
// training, averaged with momentum 0.9 and corrected for the start ("ema"), or of all of them ("minmax");
// fixed in evaluation.
#include <algorithm>
#include <cmath>

#include "../../autograd/ops.h"
#include "../quantizer.h"
#include "backward.h"
#include "ranges.h"

namespace stairgrad::quant {
namespace {

// Linear in the gradient, so its vjp is itself.
struct PassOnGrid final : Op {
  Grids grids;

  explicit PassOnGrid(Grids grids) : grids(std::move(grids)) {}
  std::string_view name() const override { return "pass_on_grid"; }
  Arrays forward(const Arrays& in) const override { return {pass_on_grid(in[0], in[1], grids)}; }
  Tensors vjp(const Vjp& v) const override {
    return {v.needs(0) ? apply_op(PassOnGrid(grids), {v.grad(), v.input(1)}) : Tensor(),
            v.needs(1) ? Array::zeros(v.input_shape(1), v.input_dtype(1)) : Tensor()};
  }
  Saved saved() const override { return {.inputs = {1}}; }
};

struct SteOp final : QuantizeOp {
  using QuantizeOp::QuantizeOp;
  std::string_view name() const override { return "ste"; }
  Tensors vjp(const Vjp& v) const override { return {apply_op(PassOnGrid(grids), {v.grad(), v.input(0)})}; }
  Saved saved() const override { return {.inputs = {0}}; }
};

class Ste final : public Quantizer {
 public:
  Ste(const QuantizerOptions& options, int64_t channels)
      : Quantizer(options, channels),
        low_(add_buffer("l", {groups()})),
        high_(add_buffer("u", {groups()})),
        batches_(add_buffer("batches", {1})),
        averaged_(options.settings.choice("range") == "ema") {}

  QuantizerTraits traits() const override { return {.learned = false}; }

  Grids grids(const Arrays&) const override {
    Grids all;
    const std::vector<double> low = low_.to_vector(), high = high_.to_vector();
    for (size_t g = 0; g < low.size(); ++g)
      all.push_back(options().weight ? symmetric_grid(high[g], options().bits)
                                     : zero_grid(low[g], high[g], options().bits));
    return all;
  }

  Tensor apply(const Tensors& in) const override { return quantize(SteOp(grids({})), in); }

  Tensor surrogate(const Tensors& in, const Arrays& at) const override {
    const Tensor passed = pass_on_grid(Array::full(at[0].shape(), 1, at[0].dtype()), at[0], grids({}));
    return fake_quantize(at[0], grids({})) + passed * (in[0] - at[0]);
  }

 private:
  void choose(const Array& x) override { follow(x); }
  void observe(const Array& x) override {
    if (options().weight || (training() && options().learn)) follow(x);
  }

  void follow(const Array& x) {
    const Array slices = x.reshape({groups(), x.size() / groups()});
    std::vector<double> low = kernels::reduce(kernels::Reduction::min, slices, {1}).to_vector();
    std::vector<double> high = kernels::reduce(kernels::Reduction::max, slices, {1}).to_vector();
    const auto finite = [](double value) { return std::isfinite(value); };
    if (!std::all_of(low.begin(), low.end(), finite) || !std::all_of(high.begin(), high.end(), finite))
      return;

    // The average of all batches with weights 0.9^age: the newest has 0.1 / (1 - 0.9^batches).
    const double batches = batches_.item() + 1, newest = 0.1 / (1 - std::pow(0.9, batches));
    const std::vector<double> old_low = low_.to_vector(), old_high = high_.to_vector();
    for (size_t g = 0; g < low.size(); ++g) {
      if (options().weight) {
        high[g] = std::max(high[g], -low[g]);
        low[g] = -high[g];
      } else if (!averaged_) {
        low[g] = std::min(low[g], old_low[g]);
        high[g] = std::max(high[g], old_high[g]);
      } else {
        low[g] = old_low[g] + newest * (std::min(low[g], 0.0) - old_low[g]);
        high[g] = old_high[g] + newest * (std::max(high[g], 0.0) - old_high[g]);
      }
    }
    low_.assign(cast(Array::of(low), low_.dtype()));
    high_.assign(cast(Array::of(high), high_.dtype()));
    if (!options().weight) batches_.assign(Array::full(batches_.shape(), batches, batches_.dtype()));
  }

  Array &low_, &high_, &batches_;
  bool averaged_;
};

}  // namespace

QuantizerEntry ste_entry() {
  return {[](const QuantizerOptions& options, int64_t channels) {
            return std::make_shared<Ste>(options, channels);
          },
          {SettingRule::choice("range", {"ema", "minmax"})},
          "straight-through on ranges of the data"};
}

}  // namespace stairgrad::quant
