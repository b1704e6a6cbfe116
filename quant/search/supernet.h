// A network whose layers have all their candidate bits at once.
#pragma once

#include <memory>

#include "../../nn/optimiser.h"
#include "mixed_quantizer.h"
#include "space.h"

namespace stairgrad::quant {

struct SupernetOptions {
  std::string quantizer = "lsq:init=mse";  ///< of the catalogue
  std::string granularity = "layer";       ///< of the weights: "layer" or "channel"
};

/// The mixed quantizers of a model, for weights and input of each layer of a search space. Weights are shared
/// by the candidates, and a layer convolves once, the mixed weight with the mixed input: convolution is
/// bilinear, so that is the mixture of all pairs (EdMIPS, section 4.3). They are a child of the model,
/// "search", named like the taps: "search.layer1.0.conv1.weight.logits". Layers outside of the space, and
/// tensors, stay in floats.
class Supernet : public nn::Module {
 public:
  struct Layer {
    std::string name;
    int64_t macs;
    std::shared_ptr<MixedQuantizer> weight, input;
  };
  const std::vector<Layer>& layers() const { return layers_; }

  /// How logits become shares from now on.
  void soften(const Softening& softening);
  /// sum_l macs_l * E[w_l] * E[a_l], scalar, f32: differentiable by the logits.
  Tensor expected_bops() const;
  /// Expected bits of each layer: {w, a}.
  struct ExpectedBits {
    double w, a;
  };
  std::vector<ExpectedBits> expected_bits() const;
  /// Their mean over weights and activations of all layers.
  double mean_bits() const;

  /// The bits with the largest logits; `ties` counts the sites where several were equally large.
  BitChoice chosen(int* ties = nullptr) const;
  /// log pi of the bits of a layer, with a nudge towards chosen() that matters between equals alone: for
  /// SearchSpace::best().
  double merit(size_t layer, LayerBits bits) const;

  /// After a step of the optimiser: ranges back to where their grids are defined.
  void project();

 private:
  friend std::shared_ptr<Supernet> attach_supernet(nn::Model&, const SearchSpace&, const SupernetOptions&);
  std::vector<Layer> layers_;
};

/// Makes a model a supernet; earlier sites go. Logits are equal at the start, ranges come from the first
/// batch.
std::shared_ptr<Supernet> attach_supernet(nn::Model& model, const SearchSpace& space,
                                          const SupernetOptions& options = {});
/// The parameters of such a model in three groups: weights of the network, which decay; its other parameters
/// and the quantizers' ranges, which do not; and logits with `importance_lr` times the learning rate, which
/// do not either: decay would pull shares together (the released code has it).
std::vector<nn::ParameterGroup> supernet_groups(const nn::Module& model, double weight_decay,
                                                double importance_lr);
/// Makes it the float model again that it was.
void detach_supernet(nn::Model& model);

}  // namespace stairgrad::quant
