// Quantizers in their places: what turns a model of floats into a quantized one.
#pragma once

#include <map>

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

  /// From now on the layers of `model`, whose sites these are, convolve integers with exact sums if both their
  /// weights and their input are quantized: in f32 as in evaluation, in bf16 on codes, which is as fast as
  /// convolving bf16 values.
  void convolve_integers(nn::Model& model);

 private:
  friend std::shared_ptr<Sites> attach_sites(nn::Model& model, const Policy& policy);
  explicit Sites(const Policy& policy) : policy_(policy) {}
  void add(const std::string& name, nn::Tap& tap, const std::string& quantizer,
           const QuantizerOptions& options, int64_t channels);

  Policy policy_;
  std::vector<Site> sites_;
};

/// Puts quantizers into the taps of a model; earlier ones go. Throws argument_error if the policy does not
/// fit.
std::shared_ptr<Sites> attach_sites(nn::Model& model, const Policy& policy);
/// Takes them out again; layers convolve values.
void detach_sites(nn::Model& model);
/// Initialises every quantizer from one batch that runs through the model in evaluation mode.
void calibrate(nn::Model& model, const Array& images);

/// While it lives, keeps what every activation site of a model gave last: integers q (grid.h), by the name of
/// the site. Leaves the sites as they were.
class SiteRecorder {
 public:
  explicit SiteRecorder(nn::Model& model);
  ~SiteRecorder();
  SiteRecorder(const SiteRecorder&) = delete;
  SiteRecorder& operator=(const SiteRecorder&) = delete;

  std::map<std::string, Array> integers;

 private:
  nn::Model& model_;
  std::map<std::string, std::function<Quantized(const Tensor&)>> original_;
};

}  // namespace stairgrad::quant
