// The generalisation risk of GMPQ: how far the supernet is from looking where the float network looks.
#pragma once

#include <memory>

#include "../../nn/attribution.h"
#include "../../nn/losses/attribution.h"
#include "supernet.h"

namespace stairgrad::quant {

/// How the exponent p of the imitated map follows from the mean bits b of the network: fewer bits, less
/// capacity, larger p, more concentrated attribution. With t = (8 - b) / 6 in [0, 1]:
enum class CapacityRule {
  linear,      ///< at_8_bits + (at_2_bits - at_8_bits) t: the rule the paper reports as best (appendix C)
  convex,      ///< the same with t^2
  concave,     ///< the same with sqrt(t): shapes like the other two of appendix C
  reciprocal,  ///< product * mean over layers of 1 / (w a): the released code
  constant     ///< the released command
};
CapacityRule parse_capacity_rule(const std::string& name);
/// "linear", "convex", ...
std::vector<std::string> capacity_rule_names();

/// The paper's constants are not published; these give about the code's 3 for 4 bits.
struct CapacityOptions {
  CapacityRule rule = CapacityRule::linear;
  double at_2_bits = 4, at_8_bits = 1;
  double product = 24;
  double constant = 3;
};
double capacity_exponent(const CapacityOptions& options, const std::vector<Supernet::ExpectedBits>& bits);

/// Exponents by hardness: p (1 + beta (h - mean h)) with h the image's loss over the batch's mean loss,
/// within [0.5, 2]; not below a tenth of p. (R-GMPQ publishes no rule: our reading.)
std::vector<double> hardness_exponents(double p, const std::vector<double>& losses, double beta);

/// Which class the maps explain.
enum class ExplainedClass {
  own,      ///< each side its own top class: the released code
  teacher,  ///< both sides the teacher's
  label
};
ExplainedClass parse_explained_class(const std::string& name);

struct RiskOptions {
  std::string block = {};  ///< after which maps are taken; empty: the last feature map
  ExplainedClass explained = ExplainedClass::own;
  CapacityOptions capacity = {};
  int64_t top_k = 0;       ///< pixels; 0: all
  bool skip_empty = true;  ///< ImitationOptions
  double beta = 0;         ///< of hardness_exponents(); 0: one exponent for all images
  int levels = 0;          ///< of the hierarchical partition, nn::quad_tree(); 0: none
  double tolerance = 0.15;
};
/// What R-GMPQ adds, in our reading: partition with 3 levels, beta 0.25.
RiskOptions r_gmpq(RiskOptions options);

/// A batch as the supernet and its teacher see it.
struct Risk {
  Tensor logits;         ///< of the supernet, f32
  Tensor imitation;      ///< scalar: nn::imitate()
  int64_t empty = 0;     ///< images left out
  double exponent = 0;   ///< the mean p
  double agreement = 0;  ///< mean Spearman correlation of the two maps, if it was asked for
};

/// Runs the supernet and its teacher on a batch (n, h, w, c) with labels s32 (n). nn::explainer_of() a
/// network keeps that in evaluation mode, where the released code lets it go on learning statistics;
/// nn::mean_of() makes several one (appendix I).
Risk generalisation_risk(nn::Model& model, const Supernet& supernet, const nn::Explainer& teacher,
                         const Tensor& images, const Array& labels, const RiskOptions& options,
                         bool measure_agreement = false);

}  // namespace stairgrad::quant
