// How a network is quantized, as programs ask for it.
#pragma once

#include "../../quant/sites.h"
#include "options.h"
#include "task.h"

namespace stairgrad::examples {

struct QuantizationOptions {
  std::string quantizer = "dsq", granularity = "layer", skip = "u8", ends = "8";
  std::string eight_bit_quantizer = {};  ///< of ends and skips with 8 bits; empty: quantizer
  std::string policy = {};               ///< a policy file, in place of all the others
  int w_bits = 4, a_bits = 4;
  bool integer_forward = false;

  void add_to(Options& options);
  /// For titles: the quantizer, or the policy file.
  std::string title() const { return policy.empty() ? quantizer : "policy " + policy; }
  /// Of every layer of `model`. Throws what Policy::load() throws.
  quant::Policy policy_for(nn::Model& model) const;
  /// Puts the quantizers in, ready to train as the options ask.
  std::shared_ptr<quant::Sites> attach(nn::Model& model, const quant::Policy& policy) const;
};

/// The parameters of a quantized model: those of the network as decayed_groups() has them; those of the
/// quantizers, with `quantizer_lr` times the learning rate, do not decay, which would drive alpha to 0 and
/// shrink ranges, unless their paper has it so (QuantizerTraits::decay).
std::vector<nn::ParameterGroup> quantized_groups(const nn::Model& model, const quant::Sites& sites,
                                                 double weight_decay, double quantizer_lr = 1);

/// Initialises the quantizers of `model` from one batch of at most `images` training pictures, drawn by
/// `seed` and not changed at random.
void calibrate(nn::Model& model, const Task& task, uint64_t seed, int64_t images = 512);

}  // namespace stairgrad::examples
