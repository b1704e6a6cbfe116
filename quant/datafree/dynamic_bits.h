// A quantized network whose layers' inputs have other bits for each image.
#pragma once

#include "../policy.h"
#include "../sites.h"
#include "bit_selector.h"

namespace stairgrad::quant::datafree {

struct DynamicOptions {
  std::vector<int> candidates = {3, 4, 5};  ///< ascending
  int target = 4;                           ///< one of them: the network of cost 1
  SelectorType type = SelectorType::image;
  SelectorOptions selector = {};
  /// Blocks that run before the selector, and keep fixed bits: 1 is the stem alone.
  size_t after = 1;
  /// Weights take the candidate's bits, too (DQNet, CVPR'22): one set of codes for each candidate. Then their
  /// bits in the policy are the target's.
  bool weights = false;
  /// Quantizer of the candidates' activations: "ste" sees one range for all of them, that of the extremes,
  /// "ste:range=mse" finds one for each, "lsq" learns one for each.
  std::string quantizer = "ste:range=mse";
  /// A batch norm of its own for each candidate, behind each layer that has one (as in Any-Precision,
  /// AAAI'21). Gamma and beta are learned; the statistics stay the layer's own, as nobody can repeat the
  /// training that they are from.
  bool norms = false;
  uint64_t seed = 0;  ///< of the selector's initial weights
};

/// `fixed`, whose skip must be u8, with room for DynamicBits: the layers behind `after` blocks, but for the
/// last one, read 8 bits, which their candidates then map.
Policy dynamic_policy(nn::Model& model, const Policy& fixed, const DynamicOptions& options);

/// How choices come about.
enum class Choosing {
  hard,              ///< the selector's most probable one: what is deployed
  straight_through,  ///< the same, with the gradient of softmax
  gumbel,            ///< with Gumbel noise, one-hot with the gradient of softmax
  random,            ///< uniform, for each image and layer: warm-up
  given              ///< from choices that come along
};

/// Candidates in place of the input sites of a model, and the selector between them. A child of the model,
/// "dynamic".
class DynamicBits : public nn::Module {
 public:
  struct Site {
    std::string layer;
    int64_t macs;    ///< for one image
    int w_bits;      ///< of the policy
    int64_t groups;  ///< of channels
  };

  const DynamicOptions& options() const { return options_; }
  const std::vector<Site>& sites() const { return sites_; }

  // What the next forward does.
  Choosing choosing = Choosing::hard;
  double temperature = 1;  ///< of Gumbel noise
  Philox rng{0};           ///< of random choices and noise
  Array choices;           ///< given: (n, sites) u8

  /// images (n, h, w, c) -> logits. With `maps` it keeps the results of all blocks but the head.
  Tensor forward(const Tensor& images, Tensors* maps = nullptr);

  /// Of the last forward: gates (n, sites, candidates), and the probabilities of the selector, undefined
  /// where it had no say.
  const Tensor& gates() const { return gates_; }
  const Tensor& probabilities() const { return probabilities_; }
  /// (n, sites) u8 of the last forward.
  Array last_choices() const;
  /// BOPs of the images of the last forward relative to those of all sites at the target's bits, layers of
  /// fixed bits and selector included: (n), with the gradient of the gates.
  Tensor cost() const;
  /// Bit operations of a site for one image that takes this candidate.
  double bops(const Site& site, size_t candidate) const;
  /// Which candidate has the target's bits, and the BOPs of an image that takes it everywhere: cost() is
  /// relative to them.
  size_t target_candidate() const;
  double target_bops() const;
  /// cost() of one choice for each site.
  double cost_of(const std::vector<int>& candidate) const;
  /// Where cost() can be: all sites at the lowest and at the highest candidate.
  double least_cost() const;
  double most_cost() const;
  /// After a step of the optimiser: the candidates' parameters back to where their grids are defined.
  void project();
  /// Whether the ranges within the selectors follow what they see.
  void train_selectors(bool on);
  /// Of quantizers and selectors: batch norms stay in evaluation mode.
  void train(bool on = true) override;
  /// Parameters of the selectors; their quantizers have none.
  std::vector<nn::NamedTensor> selector_parameters() const;
  /// Of their logits, candidate by candidate; share memory.
  Arrays selector_biases() const;
  int64_t selector_macs() const;

 private:
  friend std::shared_ptr<DynamicBits> attach_dynamic_bits(nn::Model& model, Sites& sites,
                                                          const DynamicOptions& options);
  DynamicBits(nn::Model& model, const DynamicOptions& options) : model_(model), options_(options) {}

  int64_t candidates() const { return static_cast<int64_t>(options_.candidates.size()); }
  Tensor quantize(size_t site, const Tensor& x);
  Tensor quantize_weights(size_t site, const Tensor& w);
  Tensor normalise(size_t site, const Tensor& x, const Tensor& skip, const BatchNormOptions& options);
  /// A copy of `norm` for each candidate of the site `layer`; all of them together take its place.
  void add_norms(const std::string& layer, size_t site, nn::BatchNorm2d& norm);
  /// (n, candidates), of images whose bits are decided already.
  Tensor gates_at(size_t site) const;
  /// Gates of `count` sites from the logits of `selector`, by `choosing`.
  Tensor choose(BitSelector& selector, const Tensor& features, int64_t first, int64_t count);

  nn::Model& model_;
  DynamicOptions options_;
  std::vector<Site> sites_;
  std::vector<std::vector<std::shared_ptr<Quantizer>>> quantizers_;  // by site and candidate
  std::vector<std::vector<std::shared_ptr<Quantizer>>>
      weight_quantizers_;                                                  // the same, if weights are dynamic
  std::map<size_t, std::vector<std::shared_ptr<nn::BatchNorm2d>>> norms_;  // by site, if there are some
  std::vector<std::shared_ptr<BitSelector>> selectors_;                    // one, or one for each site
  double fixed_bops_ = 0;                                                  // of layers and selectors
  Tensor gates_, probabilities_;
  Tensors site_gates_, site_probabilities_;  // type layer: as they come
  bool running_ = false;                     // within forward()
};

/// Puts the candidates into the layers behind the first `after` blocks, but for the last one, of a model that
/// has the sites of a dynamic_policy(). Throws argument_error for candidates that are not ascending bits of 1
/// .. 8 or without the target.
std::shared_ptr<DynamicBits> attach_dynamic_bits(nn::Model& model, Sites& sites,
                                                 const DynamicOptions& options);

}  // namespace stairgrad::quant::datafree
