// One tensor on several grids at once: the composite quantizer of a supernet.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../quantizer.h"

namespace stairgrad::quant {

/// How the logits of candidates become shares.
struct Softening {
  double temperature = 1;  ///< of the softmax; small ones decide
  bool gumbel = false;     ///< adds Gumbel noise, new in each step (Jang et al., ICLR'17)
  uint64_t seed = 0;       ///< of the noise
  int64_t step = 0;
};

/// sum_j pi_j Q_j(x) with pi = softmax(logits / temperature), for candidate quantizers Q_j of the catalogue
/// with different bits (EdMIPS: Cai and Vasconcelos, CVPR'20, eq. 12; GMPQ). Each has its own parameters,
/// initialised by the first call and learned from then on, so ranges are never frozen. For x of any shape;
/// the result has x's type. `quantizer` is a name of the catalogue with settings. Activations of quantizers
/// that only round (RoundingRule) are mixed in one pass.
class MixedQuantizer : public nn::Module {
 public:
  /// Throws argument_error for bits outside 1 .. 8, and unless they ascend.
  MixedQuantizer(const std::string& quantizer, std::vector<int> bits, QuantizerOptions options,
                 int64_t channels = 1);

  Tensor operator()(const Tensor& x);
  void soften(const Softening& softening) { softening_ = softening; }

  const std::vector<int>& bits() const { return bits_; }
  const std::vector<std::shared_ptr<Quantizer>>& candidates() const { return candidates_; }
  /// softmax(logits / temperature), without noise: (candidates).
  Tensor shares() const;
  /// The logarithms of shares(), in double: logits that are far apart keep their order where shares are 0.
  std::vector<double> log_shares() const;
  /// sum_j pi_j bits_j, scalar.
  Tensor expected_bits() const;
  /// Index of the largest logit. Among equals the one nearest to the expected bits, of two as near the
  /// smaller one: argmax alone would take the fewest bits. `tied` says whether there were equals.
  size_t chosen(bool* tied = nullptr) const;

  /// The candidates back to where their grids are defined.
  void project();
  void reset(uint64_t seed, const std::string& path) override;

  const Tensor& logits;  ///< (candidates)

 private:
  Tensor drawn_shares() const;

  std::vector<int> bits_;
  std::vector<std::shared_ptr<Quantizer>> candidates_;
  Softening softening_;
};

/// The same mixture as a composition of the candidates' own ops, for any quantizers: what the fused pass is
/// checked against, and where its higher derivatives come from. `shares` (candidates), `parameters[j]` those
/// of candidate j.
Tensor mix_by_composition(const Tensor& x, const Tensor& shares,
                          const std::vector<std::shared_ptr<Quantizer>>& candidates,
                          const std::vector<Tensors>& parameters);

}  // namespace stairgrad::quant
