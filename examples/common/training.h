// The training loop that the programs share, and evaluation.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../../data/loader.h"
#include "../../nn/model.h"
#include "../../nn/optimiser.h"
#include "options.h"
#include "run_directory.h"

namespace stairgrad::examples {

/// How to train.
struct TrainingOptions {
  int epochs = 100;
  int64_t batch = 128;
  std::string optimiser = "sgd";  ///< sgd, with Nesterov's momentum, or adamw
  double lr = 0.1;                ///< at the end of the warm-up; then it falls along a cosine to 0
  double momentum = 0.9, weight_decay = 5e-4;
  double warmup = 2;  ///< epochs
  double label_smoothing = 0;
  double average = 0;  ///< decay of the moving average of weights; 0: none
  int crop = 4;        ///< pixels of black border for the random crop; 0: no crop
  bool no_flip = false;
  double jitter = 0;  ///< of brightness, contrast and saturation: factors from 1 - jitter to 1 + jitter
  int cutout = 0;     ///< side of the erased square
  double mixup = 0, cutmix = 0;
  std::string dtype = "f32";  ///< of the activations: f32 or bf16
  int workers = 1;
  uint64_t seed = 0;  ///< of the order and the changes of the pictures

  void add_to(Options& options);
  /// The values that a resumed run must share with the first.
  std::map<std::string, std::string> notes() const;
  /// f32 or bf16.
  DType type() const;
};

/// Changes colours, pads, crops, flips and erases as the options say.
data::Transform training_transform(const TrainingOptions& options, const data::Normalisation& normalisation);
/// Batches in random order.
data::LoaderOptions loader_options(const TrainingOptions& options);

/// Parameters in two groups: convolution and linear weights, which decay, and the others, which do not.
std::vector<nn::ParameterGroup> decayed_groups(const nn::Module& model, double weight_decay);

/// The optimiser that the options name.
std::unique_ptr<nn::Optimiser> make_optimiser(const TrainingOptions& options,
                                              std::vector<nn::ParameterGroup> groups);

/// Evenly spread pictures of a data set: `count`, but at most 5,000 and no more than it has.
data::Dataset some_of(const data::Dataset& dataset, int64_t count);

/// How good a network is.
struct Evaluated {
  double accuracy = 0;  ///< percent, top 1
  double loss = 0;      ///< mean cross-entropy
  int64_t images = 0;
  double seconds = 0;
  std::vector<int32_t> predictions;
};
/// Images (h, w, c) a batch when nothing is learned from it: as many as have the pixels of 32 images of
/// 224 x 224, and at most 250. Memory depends on it, results but by rounding.
int64_t evaluation_batch(const Shape& image);
/// Runs `logits` (images -> (n, classes)) over a data set in order, in batches of evaluation_batch(). Throws
/// numeric_error when a logit is not finite.
Evaluated evaluate(const std::function<Array(const Array& images)>& logits, const data::Dataset& dataset,
                   const data::Transform& transform, DType dtype = DType::f32);
/// The same for a model, in evaluation mode and without recording.
Evaluated evaluate(nn::Model& model, const data::Dataset& dataset, const data::Transform& transform,
                   DType dtype = DType::f32);

/// Cross-entropy of logits (n, classes) with the labels of a batch, smoothed, or with its soft labels if
/// pictures were mixed.
Tensor cross_entropy_of(const Tensor& logits, const data::Batch& batch, double label_smoothing);

/// A training, complete but for what train() does.
struct TrainingJob {
  std::string phase = "training";  ///< what the progress bar and metrics.jsonl call it
  nn::Model& model;
  nn::Optimiser& optimiser;
  data::Loader& loader;
  TrainingOptions options;
  RunDirectory& run;
  int first_epoch = 0;  ///< epochs are numbered from here, for phases that follow one another
  std::string checkpoint = "last.ckpt";
  std::map<std::string, std::string> notes =
      {};  ///< what else a resumed run must share, such as the data set

  /// What a checkpoint keeps beside model, optimiser and average: arrays that share memory with what they are
  /// of.
  std::map<std::string, nn::State> parts = {};

  /// The loss of a batch; by default the cross-entropy of the model's logits.
  std::function<Tensor(const Tensor& images, const data::Batch& batch)> loss = {};
  /// Called after every step of the optimiser; quantizers are projected here.
  std::function<void()> after_step = {};
  /// Called after every epoch, in training mode, with the averaged weights in place if there are any.
  std::function<Evaluated()> evaluate = {};
  std::string measured = "test";  ///< the pictures that `evaluate` uses
};

/// Trains to the last epoch. Writes a line of metrics and a checkpoint after each, and a checkpoint when
/// Ctrl-C asks to stop (then throws Interrupted). With `resume` it goes on from the checkpoint, if there is
/// one, as if it had never stopped, bit for bit. At the end the model holds the averaged weights if the
/// options ask for an average. Throws numeric_error naming step and parameter when the loss is not finite.
/// Returns the seconds that the steps of all epochs took, those before a resume as well; measuring is not
/// counted. They also become the result's speed.PHASE.images_per_second.
double train(TrainingJob job, bool resume);

}  // namespace stairgrad::examples
