// The uniform quantizer with the straight-through gradient (Bengio et al., 2013): the range comes from the
// data, and gradients pass wherever a value is rounded, not saturated.
//
// Weights lie on DSQ's grid. By default they have [-max|w|, max|w|] of every call, and activations the
// averaged extremes of the batches.
#include "observed.h"
#include "straight_through.h"

namespace stairgrad::quant {
namespace {

class Ste final : public Observed {
 public:
  Ste(const QuantizerOptions& options, int64_t channels) : Observed(options, channels) {}

  Tensor apply(const Tensors& in) const override {
    const Grids on = grids({});
    return quantize(StraightThroughOp(on, rounded_range(on)), in);
  }
  Tensor surrogate(const Tensors& in, const Arrays& at) const override {
    const Grids on = grids({});
    return straight_through_surrogate(in[0], at[0], on, rounded_range(on));
  }
};

}  // namespace

QuantizerEntry ste_entry() {
  return {[](const QuantizerOptions& options, int64_t channels) {
            return std::make_shared<Ste>(options, channels);
          },
          range_rules("ema", 3), "straight-through on ranges of the data"};
}

}  // namespace stairgrad::quant
