// Trains a quantized network, and the selector of its bits, on images that were made.
#pragma once

#include <functional>
#include <optional>

#include "../../nn/checkpoint.h"
#include "../policy.h"
#include "distillation.h"
#include "dynamic_bits.h"
#include "image_set.h"

namespace stairgrad::quant::datafree {

/// How the selector's cost enters the loss.
enum class BudgetLaw {
  hinge,    ///< max(mean cost - target, 0)
  distance  ///< |mean cost - target|: pulls up, too
};

/// L = w_kd KD + w_ce CE + w_features features + w_budget L_budget - w_entropy H(mean probabilities). With a
/// perturbation p the first three come once more, on x + p sign(dL/dx).
struct FineTuningOptions {
  int calibration =
      100;  ///< batches that move the ranges of activations before the first step; then they stay
  int epochs = 20, steps = 50;
  int64_t batch = 64;
  double lr = 3e-5, momentum = 0.9, weight_decay = 1e-4;
  std::vector<double> milestones =
      {};  ///< shares of the steps at which lr falls to a tenth; none: along a cosine
  double temperature = 20, kd = 20, ce = 1, features = 0;
  KlReduction reduction = KlReduction::batchmean;
  /// Easy images are those that stand beside hard ones: of a set without hard images `easy` mixes none.
  /// Ranges are calibrated on images as they are.
  Mixup mixup = Mixup::easy;
  double mixup_alpha = 1;
  bool augment = true;      ///< crop_and_flip_each()
  double perturbation = 0;  ///< of normalised pixels; 0: none
  uint64_t seed = 0;

  // Of the selector:
  double budget = 200;  ///< weight, beside kd T^2 = 8000
  double target = 1;    ///< mean cost relative to the target's bits
  BudgetLaw law = BudgetLaw::hinge;
  double entropy = 0.01;      ///< weight of the guard against collapse
  double warm_up = 0.1;       ///< share of the steps with random bits
  double selector_lr = 1e-3;  ///< of Adam
  Choosing choosing = Choosing::gumbel;
  double temperature_start = 1, temperature_end = 0.5;  ///< of Gumbel noise
};

/// intraq, hast or gdfq as published (but for `epochs`), or dynadfq: ours. Throws argument_error that lists
/// the names for another one.
FineTuningOptions fine_tuning_preset(const std::string& name);
std::vector<std::string> fine_tuning_presets();
/// Throws argument_error for options out of range.
void validate(const FineTuningOptions& options);
/// Throws argument_error for a mean cost that no choice of bits is as low as.
void check_target(const DynamicBits& dynamic, double target);

/// Means over an epoch.
struct EpochNote {
  int epoch = 0;
  double loss = 0, kd = 0, ce = 0, features = 0;  ///< the parts: on the images as they are
  double budget = 0, cost = 0;  ///< of the selector: loss, and mean relative BOPs as it was trained
  double deployed_cost = 0;     ///< and of its most probable choices, after the epoch: deployed_choices()
  double bits = 0,
         bit_entropy = 0;  ///< mean bits of the sites; entropy of their histogram, nats, mean over sites
  double selector_gradient = 0;  ///< length of the gradient that reaches the selector
};

struct FineTuningHooks {
  std::function<void(int64_t images)> progress = {};  ///< after each batch; may throw to stop
  /// After each epoch, in evaluation mode; the weights are those of that epoch.
  std::function<void(const EpochNote&)> after_epoch = {};
  /// After that, with all it takes to go on from there bit for bit: counter "epoch" says how many are done.
  std::function<void(const nn::Checkpoint&)> checkpoint = {};
  /// One of those, of the same student, set and options: the epochs that it has are not run again.
  const nn::Checkpoint* resume = nullptr;
};

/// Trains `student`, whose quantizers are in place, to do what `teacher` does on `set`; `dynamic` is its
/// child or null. Both stay in evaluation mode: batch norms keep the statistics of the training that nobody
/// can repeat. Batches depend on (options.seed, step) alone. Throws argument_error for options out of range,
/// for a target that no choice of bits can reach and for a checkpoint of another run, numeric_error naming
/// the step when the loss is not finite.
void fine_tune(nn::Model& student, Sites& sites, DynamicBits* dynamic, nn::Model& teacher,
               const ImageSet& set, const FineTuningOptions& options, const FineTuningHooks& hooks = {});

/// (n, sites) u8: what the selector chooses for images of the set, the first 512 at most, when it runs
/// without noise. Moves nothing.
Array deployed_choices(DynamicBits& dynamic, const ImageSet& set);
/// Mean relative BOPs of choices (n, sites).
double mean_cost(const DynamicBits& dynamic, const Array& choices);

/// Takes a shift times the number of the candidate from the logits of the selectors, so that the choices of
/// deployed_choices() cost what is asked for: training saw noisy ones, and a loss can only pull. Returns the
/// shift; 0 if they did so before, or if no shift brings them nearer.
double meet_target(DynamicBits& dynamic, const ImageSet& set, double target);

/// A sentence if a mean cost misses its target by more than target_tolerance of it, to either side. `kind`
/// says which images cost that.
std::optional<std::string> missed_target(double cost, double target, const std::string& kind = "images");
constexpr double target_tolerance = 0.02;
/// A sentence if the choices (n, sites) u8 of a selector are almost the same for all images: the entropy of
/// every site's histogram is below 0.1 nat, or no two images differ. `kind` says which images they are.
std::optional<std::string> collapse(const Array& choices, int64_t candidates,
                                    const std::string& kind = "images");
/// Entropy of the histogram of each site, nats.
std::vector<double> choice_entropy(const Array& choices, int64_t candidates);

/// How the first and the last layer are quantized. Results of different protocols do not belong into one
/// table.
enum class Protocol {
  family,  ///< weights of all layers have the low bits; batch norms stay; images and the features of the head
           ///< have 8 bits
  folded   ///< batch norms are folded first; the first and the last layer have 8 bits (as post-training
           ///< methods do)
};
std::string to_string(Protocol protocol);
/// Throws argument_error that lists what is known.
Protocol parse_protocol(const std::string& name);
/// Weights per channel; the model is folded already if the protocol says so.
Policy protocol_policy(nn::Model& model, Protocol protocol, int w_bits, int a_bits,
                       const std::string& quantizer, Skip skip);

}  // namespace stairgrad::quant::datafree
