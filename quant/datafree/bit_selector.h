// A small network that decides, image by image, how many bits each layer's input has.
#pragma once

#include "../../nn/layers.h"
#include "../quantizer.h"

namespace stairgrad::quant::datafree {

/// Where a selector reads, and for whom it decides.
enum class SelectorType {
  layer,  ///< A: one for each layer, from what that layer reads (CADyQ, ECCV'22)
  image,  ///< B: one for all layers, from an early feature map (DQNet, CVPR'22)
  offset  ///< C: one for the image, plus a learned preference of each layer (AdaBM, CVPR'24)
};
std::string to_string(SelectorType type);
/// Throws argument_error that lists what is known.
SelectorType parse_selector_type(const std::string& name);

struct SelectorOptions {
  int64_t hidden = 16;         ///< of types image and offset
  bool start_highest = false;  ///< the first choice; else it is the target's bits
};

/// Mean and deviation of each channel -> [fully connected, ReLU ->] fully connected -> a logit for each site
/// and candidate. Types image and offset have the hidden layer; type offset adds logits of the image to those
/// of the layers. All of it is quantized to 8 bits from the start, so that it runs in integers as it was
/// trained.
class BitSelector : public nn::Module {
 public:
  BitSelector(SelectorType type, int64_t channels, int64_t sites, int64_t candidates,
              const SelectorOptions& options);
  /// Draws initial weights, small ones at the end, so that its biases decide at first: for candidate `first`.
  void start(uint64_t seed, int64_t first);

  /// Features (n, h, w, channels), to which no gradient flows -> logits (n, sites * candidates).
  Tensor operator()(const Tensor& features);
  /// Of the logits, candidate by candidate (and site by site); shares memory.
  Array biases() const { return choose_->bias.value(); }
  /// Multiply-accumulates for one image.
  int64_t macs() const;

 private:
  std::shared_ptr<nn::Linear> add_linear(const std::string& name, int64_t in, int64_t out);
  std::shared_ptr<Quantizer> add_quantizer(const std::string& name, bool weight);

  SelectorType type_;
  int64_t sites_, candidates_;
  std::shared_ptr<nn::Linear> hidden_, choose_;
  const Tensor& preference_;  // type offset: (sites * candidates)
};

}  // namespace stairgrad::quant::datafree
