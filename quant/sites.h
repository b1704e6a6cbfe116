// Quantizers in their places: what turns a model of floats into a quantized one.
#pragma once

#include <map>

#include "../nn/layers.h"
#include "../nn/model.h"
#include "policy.h"
#include "quantizer.h"

namespace stairgrad::quant {

/// The quantizers of a model, one for each tap that the policy names. They are a child of the model
/// ("sites"), named like the taps ("sites.layer1.0.conv1.weight.alpha"), so their parameters are learned,
/// their state is saved and their mode changes with the model's.
class Sites : public nn::Module {
 public:
  const Policy& policy() const { return policy_; }

  struct Site {
    std::string name;
    nn::Tap::Role role;
    std::shared_ptr<Quantizer> quantizer;
  };
  const std::vector<Site>& sites() const { return sites_; }

  /// After a step of the optimiser: parameters back to where their grids are defined.
  void project();
  /// Before a step: how much of the training is done, 0 .. 1, for gradients that follow a schedule.
  void set_progress(double share);

  /// What the layers of `model`, whose sites these are, multiply from now on. Integers, with exact sums, are
  /// for layers whose weights and input are both quantized, be it by the site of a shared tensor; with bf16
  /// images they are convolved as codes, which takes no longer than values.
  void set_arithmetic(nn::Model& model, nn::Arithmetic arithmetic);

 private:
  friend std::shared_ptr<Sites> attach_sites(nn::Model& model, const Policy& policy);
  explicit Sites(const Policy& policy) : policy_(policy) {}
  void add(const std::string& name, nn::Tap& tap, const std::string& quantizer,
           const QuantizerOptions& options, int64_t channels);

  Policy policy_;
  std::vector<Site> sites_;
  // Layers without an input site of their own, and the shared tensor that each reads.
  std::map<std::string, std::string> readers_;
};

/// The layers whose input is a stored tensor (a tap of role tensor) as it is, and which one. Runs the model
/// once; taps keep their quantizers.
std::map<std::string, std::string> readers_of_tensors(nn::Model& model);

/// Puts quantizers into the taps of a model; earlier ones go. Throws argument_error if the policy does not
/// fit.
std::shared_ptr<Sites> attach_sites(nn::Model& model, const Policy& policy);
/// Takes them out again; layers convolve values.
void detach_sites(nn::Model& model);
/// Initialises every quantizer from one batch that runs through the model in evaluation mode and in floats:
/// with running statistics, what low bits lose in one layer shrinks all that follow, and their ranges would
/// be those of a network that has faded.
void calibrate(nn::Model& model, const Array& images);

/// Gives the taps of a model the hooks back that they had, when it ends.
class KeptHooks {
 public:
  explicit KeptHooks(nn::Model& model);
  ~KeptHooks();
  KeptHooks(const KeptHooks&) = delete;
  KeptHooks& operator=(const KeptHooks&) = delete;

 private:
  std::vector<std::pair<nn::Tap*, std::function<Quantized(const Tensor&)>>> hooks_;
};

/// While it lives, `visit` sees what every site of a model makes of a tensor. Leaves the sites as they were.
class SiteVisitor {
 public:
  using Visit = std::function<void(const nn::NamedTap& site, const Tensor& x, const Quantized& q)>;
  SiteVisitor(nn::Model& model, Visit visit);

 private:
  KeptHooks kept_;
  Visit visit_;
};

/// While it lives, keeps what every site of activations of a model gave last: integers q (grid.h), by the
/// name of the site.
class SiteRecorder {
 public:
  explicit SiteRecorder(nn::Model& model);

  std::map<std::string, Array> integers;

 private:
  SiteVisitor visitor_;
};

}  // namespace stairgrad::quant
