// Images out of a network alone: optimised from noise, or drawn by a generator.
#pragma once

#include <functional>
#include <map>

#include "image_set.h"
#include "statistics.h"

namespace stairgrad::quant::datafree {

/// What is optimised.
enum class Method {
  noise,     ///< the pixels themselves
  generator  ///< a network that makes them (GDFQ)
};

/// L = w_statistics L_statistics + w_label L_label + w_tv TV + w_entropy (H(p) - h ln classes)^2 + margins.
struct SynthesisOptions {
  Method method = Method::noise;
  LabelOptions labels = {};
  StatisticsOptions statistics = {};
  double statistics_weight = 1, label_weight = 1;
  /// Weighs the label loss of an image by d^focal, d = |p - y|_1 / 2, which is 1 - p_y for one class (HAST).
  double focal = 0;
  /// Above 0 the label loss is the squared difference of the probability of the image's class to a target of
  /// its own, which for half the images is uniform in [confidence, 1], else 1 (IntraQ).
  double confidence = 0;
  /// Cosine distance of features to the mean of their class among earlier batches stays between these
  /// (IntraQ); 0, 0: no such term.
  double nearest = 0, farthest = 0;
  bool classifier_embeddings =
      false;                   ///< of the generator: classes start as the classifier's weights (Qimera)
  double augment = 0;          ///< probability of crop_and_flip() in a step
  double total_variation = 0;  ///< weight
  double entropy_target = 0, entropy_weight = 0;
  bool clamp = false;  ///< keep pixels between black and white

  int64_t images = 1280, batch = 256;
  int iterations = 500;  ///< of each batch; of the generator: in all
  double lr = 0.5;       ///< of Adam; a tenth after `patience` steps without progress, never below 1e-4
  int patience = 50;
  DType dtype = DType::f32;  ///< of the activations
  uint64_t seed = 0;
};

/// zeroq, dsg, gdfq, qimera, intraq, hast or dynadfq, as far as they are published; README.md says where they
/// deviate. Throws argument_error that lists the names for another one.
SynthesisOptions synthesis_preset(const std::string& name);
std::vector<std::string> synthesis_presets();

/// Throws argument_error for options out of range.
void validate(const SynthesisOptions& options);

/// What became of a batch.
struct SynthesisNote {
  double first_statistics = 0, statistics = 0;  ///< loss at the start and at the end
  double label_loss = 0;                        ///< at the end, above the entropy of the labels
  /// Share of images whose class the network names; 1 without a label loss, as then it has given the class.
  double agreement = 0;
};

struct Synthesis {
  ImageSet set;
  std::vector<SynthesisNote> batches;
  std::vector<std::string> warnings;  ///< sentences
};

/// Called after each step: which batch, which of its iterations, the loss. May throw to stop.
using SynthesisProgress = std::function<void(int64_t batch, int iteration, double loss)>;

/// Makes images with a trained network, which is put into evaluation mode and not changed. Images that no
/// label has shaped (label_weight 0) are labelled by the network's answers. Depends on (model,
/// options, scale) alone. Throws argument_error for options out of range and for a model without batch norms
/// that shall match statistics, numeric_error where the loss is not finite.
Synthesis synthesise(nn::Model& model, const SynthesisOptions& options, const PixelScale& scale,
                     const SynthesisProgress& progress = {});

/// How images of these options are made, as JSON: the options, with the size of a hard image's group, and the
/// checksum of the network.
std::string recipe_of(nn::Model& model, const SynthesisOptions& options);

}  // namespace stairgrad::quant::datafree
