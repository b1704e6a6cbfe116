// Quantizers in their places: what turns a model of floats into a quantized one.
#pragma once

#include "../nn/model.h"
#include "policy.h"
#include "quantizer.h"

namespace stairgrad::quant {

/// Fills the taps of a model with quantizers as a policy says, and takes them out again when it is destroyed.
/// The quantizers are its children, named like the taps ("layer1.0.conv1.weight"), so their parameters are
/// saved and learned like any others.
class Sites : public nn::Module {
 public:
  /// Throws argument_error if the policy does not fit the model, which must outlive the sites.
  Sites(nn::Model& model, const Policy& policy);
  ~Sites() override;

  const Policy& policy() const { return policy_; }

  struct Site {
    std::string name;
    nn::Tap::Role role;
    std::shared_ptr<Quantizer> quantizer;
  };
  const std::vector<Site>& sites() const { return sites_; }

  /// Initialises every quantizer from one batch that runs through the model in evaluation mode.
  void calibrate(const Array& images);
  /// After a step of the optimiser: parameters back to where their grids are defined.
  void project();

 private:
  void add(const std::string& name, nn::Tap& tap, const std::string& quantizer,
           const QuantizerOptions& options, int64_t channels);

  nn::Model& model_;
  Policy policy_;
  std::vector<Site> sites_;
};

}  // namespace stairgrad::quant
