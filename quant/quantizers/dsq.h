// Differentiable soft quantization (Gong et al., ICCV'19).
//
// Forward: the plain uniform grid on [l, u] with N = 2^b - 1 intervals, for every alpha. Backward: that of
// the paper's Algorithm 1 with learned alpha, l, u: inside the interval i of x, with t in [-1/2, 1/2] the
// place within it,
//   Q = l + Delta (i + (phi + 1) / 2),  phi = tanh(kappa t) / (1 - alpha),  kappa = ln(2 / alpha - 1),
// and sgn(phi), which makes the forward hard, passes gradients straight through.
#pragma once

#include "../quantizer.h"

namespace stairgrad::quant {

struct DsqOptions {
  double alpha = 0.2;             ///< initial distance of phi's ends from their asymptotes, in [1e-3, 0.999]
  bool learn_alpha = true;        ///< false: alpha stays where it starts
  bool soft_direct_term = false;  ///< dQ/dl and dQ/du take Q's code from phi instead of the hard one
  bool learn_range = true;        ///< false: l and u stay where they start
  bool extremes = false;          ///< the range starts at the extremes of the data with every number of bits
};

class Dsq final : public Quantizer {
 public:
  /// Throws argument_error for alpha outside its range.
  explicit Dsq(const QuantizerOptions& options, int64_t channels = 1, const DsqOptions& dsq = {});

  Grids grids(const Arrays& parameters) const override;
  Tensor apply(const Tensors& in) const override;
  Tensor surrogate(const Tensors& in, const Arrays& at) const override;
  void project() override;

 private:
  struct Range {
    Tensor l, u;
  };
  /// The range of {x, parameters...}, moved by what puts zero on a level at the sample point.
  Range range(const Tensors& in, const Arrays& at) const;
  void choose(const Array& x) override;

  DsqOptions dsq_;
  Array& min_range_;
};

}  // namespace stairgrad::quant
