// The options of datafree, and what they ask of synthesis, fine-tuning and selector.
#pragma once

#include <limits>

#include "../../quant/datafree/fine_tuning.h"
#include "../../quant/datafree/synthesis.h"
#include "../common/options.h"

namespace stairgrad::examples {

constexpr double unset = std::numeric_limits<double>::quiet_NaN();  // the preset's value holds

/// "0.85" or "365M": relative to the target's bits, or BOPs.
struct Budget {
  double value = 1;
  bool absolute = false;

  static Budget parse(const std::string& word);
};

struct Settings {
  CommonOptions common;
  std::string model = "resnet20", init, import, norm, preset = "dynadfq", tuning = "dynadfq", from, real,
              eval;
  double width = 1;
  // synthesis
  int64_t images = 1280, synthesis_batch = -1, limit = 0;
  int iterations = -1, group = -1;
  std::string arm, similarity, synthesis_dtype = "f32";
  double hard = unset, synthesis_lr = unset, label_weight = unset, statistics_weight = unset, tv = unset,
         entropy_target = unset, sigma_low = unset, sigma_high = unset, dirichlet = unset, anchor = unset,
         similar_min = unset, smoothing = unset, focal = unset, synthesis_augment = unset;
  bool clamp = false;
  // quantization
  int w_bits = 4, a_bits = 4;
  std::string protocol = "family", quantizer = "ste:range=mse", skip;
  // fine-tuning
  int epochs = 20, steps = 50, calibration = -1;
  int64_t batch = -1;
  double lr = unset, kd = unset, ce = unset, features = unset, temperature = unset, perturbation = unset,
         mixup_alpha = 1;
  std::string mixup, reduction;
  bool no_augment = false, no_best = false, validate = false;
  // selector
  bool selector = false, no_shift = false;
  std::string selector_type = "image", candidates, ranges = "each", norms = "shared", choosing = "gumbel",
              law = "hinge", bops = "1", start = "target", dynamic_part = "activations";
  int after = 1;
  int64_t selector_width = 16;
  double budget = 200, entropy = 0.01, warm_up = 0.1, selector_lr = 1e-3, gumbel_start = 1, gumbel_end = 0.5;
  Value values;

  void parse(int argc, char** argv);

  quant::datafree::SynthesisOptions synthesis() const;
  quant::datafree::FineTuningOptions fine_tuning() const;
  quant::datafree::DynamicOptions dynamic() const;
};

}  // namespace stairgrad::examples
