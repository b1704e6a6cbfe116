// Reconstruction: the blocks of a network are quantized one after another, each so that it gives what it gave
// in floats.
#pragma once

#include <functional>
#include <map>
#include <optional>

#include "../sites.h"
#include "adaround.h"
#include "cache.h"
#include "contrastive.h"

namespace stairgrad::quant {

/// What the loss of a block is, beside the regulariser of the rounding.
struct Objectives {
  double reconstruction = 1;  ///< weight of the distance to the float block's output
  double power = 2;           ///< |difference|^power
  double prediction = 0;  ///< weight of KL(float || quantized) of the logits; PD-Quant's 1 / lambda_r = 10
  double prediction_temperature = 4;  ///< ResNet and RegNet; 1 for MobileNetV2 and MNASNet
  double logit_cosine = 0;            ///< weight of 1 - cosine of the logits: the contrast without negatives
  double logit_mse = 0;               ///< weight of the squared distance of the logits
  std::optional<ContrastiveOptions> contrastive = {};

  bool needs_logits() const {
    return prediction > 0 || logit_cosine > 0 || logit_mse > 0 ||
           (contrastive && contrastive->mapping == Mapping::tail);
  }
  bool needs_second_pass() const { return needs_logits() || contrastive.has_value(); }
};

/// One walk over the network.
struct Phase {
  std::string name;
  bool by_layer = false;       ///< units are layers (AdaRound), not blocks
  bool learn_weights = true;   ///< the rounding
  bool learn_steps = true;     ///< of activations
  bool activations = true;     ///< false: they stay floats, in this unit and in those before it
  int64_t iterations = 20000;  ///< of each unit
  double lr_rounding = 1e-3, lr_step = 4e-5;
  double lr_border = 1e-3;       ///< of learned borders (affine:border=yes)
  double keep_input = 0.5;       ///< share of the input that comes from the quantized units before; 1: all
  double keep_activation = 0.5;  ///< probability that an activation is quantized; 1: always
  bool replacement = true;       ///< batches are drawn with replacement
  double rounding_weight = 0.01;
  BetaSchedule beta = {};
  Objectives objectives = {};
};

struct ReconstructionOptions {
  std::vector<Phase> phases;
  int64_t batch = 32;          ///< at most the number of calibration images
  int64_t range_images = 256;  ///< calibration images whose activations choose the ranges
  bool ranges_by_block =
      false;                ///< ranges again from the quantized path, when a block's turn comes (PD-Quant)
  bool skip_first = false;  ///< the first block is not reconstructed (BRECQ's setting)
  /// Activations of the frozen float rest of the network, behind the block: bf16 is faster where the CPU has
  /// it, and adds rounding of 2^-9 to the logits that are compared with.
  DType tail = DType::f32;
  uint64_t seed = 0;
  size_t memory = size_t{4} << 30;  ///< bytes that caches may take; those that do not fit in f32 are bf16
  /// The float inputs of block `block` that its reconstruction uses in place of those of the images, such as
  /// corrected ones; empty: no change.
  std::function<FeatureCache(size_t block, const FeatureCache& inputs)> correct = {};
};

/// What the reconstruction of one unit did.
struct UnitReport {
  std::string phase, unit;
  double seconds = 0, caching_seconds = 0, correction_seconds = 0;
  double contrastive_seconds = 0;  ///< of `seconds`: the contrastive term's forward
  double before = 0;               ///< reconstruction loss of rounding to nearest, all quantizers on
  double soft = 0;                 ///< of soft weights at the end
  double hard = 0;                 ///< after hardening
  double settled = 1;              ///< share of rounding variables within 0.05 of 0 or 1 before hardening
  double flipped = 0;              ///< share of weights that are not rounded to nearest
  double drift = 0;                ///< largest |log| of the change of a step
  int64_t variables = 0;
  size_t cache_bytes = 0;
  std::optional<FeatureStatistics> features = {};  ///< of the last batch, with CL-Calib
};

/// Who wants to see how it goes, or to stop it by throwing.
struct ReconstructionObserver {
  /// `loss` is without the regulariser of the rounding.
  std::function<void(const std::string& unit, int64_t iteration, int64_t iterations, double loss)> iteration =
      {};
  /// Called when a unit is hard; the network's state and state() are those to resume from.
  std::function<void(const UnitReport&)> unit = {};
};

/// Quantizes a network block by block. Its sites must hold weights of any uniform quantizer that puts weights
/// on the grid as they are, and `affine` activations.
class Reconstruction {
 public:
  /// `images` (n, h, w, c): the calibration set. Takes over the taps of the model while it lives. Throws
  /// argument_error for a quantizer that it does not know, no images, and caches beyond the memory.
  Reconstruction(nn::Model& model, Sites& sites, const Array& images, ReconstructionOptions options);
  ~Reconstruction();
  Reconstruction(const Reconstruction&) = delete;
  Reconstruction& operator=(const Reconstruction&) = delete;

  /// Chooses ranges and walks through the phases; goes on after the units that state() counts. When this
  /// object is destroyed, the model has its taps back, and its weights are the rounded ones, which its
  /// quantizers map to themselves. If `observer` throws, weights and steps are as after the last unit.
  void run(const ReconstructionObserver& observer = {});

  /// Units that are done, and their weights; the quantizers' state is the model's.
  nn::State state() const;
  void load_state(const nn::State& state);

  /// The float network's logits of the calibration images.
  const Array& logits() const;
  /// Names of what is optimised, and of what is not.
  std::vector<std::string> trainable() const;
  size_t peak_cache_bytes() const;
  /// Images whose activations choose the ranges: range_images, or as many as there is memory for.
  int64_t images_for_ranges() const;
  /// What choosing ranges took.
  double range_seconds() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace stairgrad::quant
