// What deployment gives: how the integer run compares with training's arithmetic, and how fast it is.
#pragma once

#include <functional>
#include <map>
#include <optional>

#include "../../data/loader.h"
#include "../../nn/model.h"
#include "../../quant/cost.h"
#include "../../quant/integer/model.h"
#include "../../quant/policy.h"
#include "explanation.h"
#include "task.h"

namespace stairgrad::examples {

/// The integer run of a data set beside the quantized evaluation and beside plain f32 fake quantization.
struct Agreement {
  int64_t images = 0;
  int64_t correct = 0;  ///< top-1 of the integer run
  int64_t top1 = 0;     ///< images on which it agrees with the quantized evaluation
  int64_t codes = 0,
          mismatched = 0;  ///< codes of all values, and those that differ from the quantized evaluation
  /// Of all batch sizes that compare() takes, and those that differ from the quantized evaluation in any bit.
  int64_t logits = 0, logits_differing = 0;
  int64_t fake_top1 = 0;  ///< images on which it agrees with fake quantization
  /// Codes of a site, and those that differ from fake quantization: by rounding at the border of two codes,
  /// of its own sums and of all layers before.
  struct Site {
    int64_t codes = 0, mismatched = 0;
  };
  std::map<std::string, Site> fake_sites;

  double accuracy() const;    ///< percent
  double fake_share() const;  ///< percent of differing codes, of all sites
  /// The figures as result.json has them.
  void record(Value& result) const;
  /// The same as two sentences.
  std::string str() const;
  /// Throws numeric_error, which names the file with the result, if a code or logit differs from the
  /// quantized evaluation.
  void expect_equal(const std::string& result_file) const;
};

/// Lowers `model`, in evaluation mode and with its sites, to integers that know their pictures and classes;
/// `forward` as for compare(). Throws argument_error naming op and layer when there is no integer form.
quant::integer::Model lowered(nn::Model& model, const data::Normalisation& normalisation,
                              const std::vector<std::string>& class_names, const quant::Policy& policy,
                              const std::function<Tensor(const Tensor&)>& forward = {});
/// The same for the model of a task; writes `path` and reads it back: what is measured is what was written.
quant::integer::Model deploy(nn::Model& model, const Task& task, const quant::Policy& policy,
                             const std::string& path);

/// Runs `dataset` three times: `lowered` on the integer runtime; `lowered` on exact float convolutions (the
/// quantized evaluation); and `model`, whose sites `lowered` was made from, in plain floats, by `forward` if
/// it takes more than the model's own. The integer run keeps its values, to compare codes; logits are
/// compared of runs that reuse their buffers, too: all images in batches of 32 but for a rest, and the first
/// 64 one by one.
Agreement compare(const quant::integer::Model& lowered, nn::Model& model, const data::Dataset& dataset,
                  const data::Transform& transform, const std::function<Tensor(const Tensor&)>& forward = {});

/// Writes model.safetensors, which says its accuracy and its policy, and policy.json to the folder of the
/// run, and cost.params, .macs, .bops (all layers) and .bops_inner (without the first and the last) to its
/// result; returns what the layers cost.
std::vector<quant::LayerCost> save_quantized(Task& task, const quant::Policy& policy, const Evaluated& fake,
                                             RunDirectory& run);

/// What each layer of an integer model does to the first images of a data set.
struct Explanation {
  std::vector<quant::LayerExplanation> layers;
  int64_t images = 0;

  void add_to(Report& report) const { add_explanation(report, layers, images); }
};
/// quant::explain() on at most `images` of `dataset`, printed and noted in the result of the run as `layers`.
Explanation explain_layers(const quant::integer::Model& lowered, nn::Model& model,
                           const data::Dataset& dataset, const data::Transform& transform, int64_t images,
                           RunDirectory& run);

struct DeploymentOptions {
  bool no_deploy = false;
  int64_t explain = 0;  ///< images for explain_layers()

  void add_to(Options& options);
  /// Throws argument_error if they exclude each other.
  void validate() const;
};
struct Deployment {
  Agreement agreement;
  std::optional<Explanation> explanation;
};
/// deploy() to integer.safetensors, compare() on `test`, and explain_layers() if asked, printed and noted in
/// the result of the run. A model without an integer form gives nothing, and the result says why as
/// `deployed`.
std::optional<Deployment> deploy_and_compare(Task& task, const quant::Policy& policy,
                                             const data::Dataset& test, const DeploymentOptions& options,
                                             RunDirectory& run);

struct Speed {
  double images_per_second = 0;  ///< at batch 100
  double latency_ms = 0;         ///< at batch 1
};

/// Medians over about a second each; the images are random.
Speed float_speed(nn::Model& model);
Speed integer_speed(const quant::integer::Model& lowered);

}  // namespace stairgrad::examples
