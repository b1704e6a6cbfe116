// A policy says how each layer and each stored tensor is quantized: JSON that people can read, edit and diff.
#pragma once

#include <map>
#include <string>

#include "../nn/module.h"

namespace stairgrad::quant {

/// Where the skip of a residual add lives.
enum class Skip {
  u8,       ///< on an 8-bit site of its own; a layer with fewer bits maps the codes
  shared,   ///< on the low-bit grid that feeds the convolution as well
  floating  ///< not quantized, as in most papers on training; f32 in the integer runtime, too
};

/// What the first and the last layer are.
enum class Ends {
  eight,    ///< 8-bit weights and activations
  same,     ///< as all others
  floating  ///< not quantized; cannot be lowered
};

/// 1 .. 8 bits, or 32 for floats.
struct LayerPolicy {
  int w_bits = 4, a_bits = 4;
  std::string quantizer = "dsq";
  std::string granularity = "layer";  ///< of the weights: "layer" or "channel"
  bool operator==(const LayerPolicy&) const = default;
};

struct TensorPolicy {
  int bits = 8;
  std::string quantizer = "dsq";
  bool operator==(const TensorPolicy&) const = default;
};

struct Policy {
  Skip skip = Skip::u8;
  Ends ends = Ends::eight;
  std::map<std::string, LayerPolicy> layers;    ///< by path: "conv1", "layer1.0.conv1"
  std::map<std::string, TensorPolicy> tensors;  ///< tensors with several readers: "stem", "layer1.0.output"
  bool operator==(const Policy&) const = default;

  std::string to_json() const;
  /// Throws format_error, with the line, for text that is not a policy: unknown keys, bits outside 1 .. 8 and
  /// 32, wrong types. `path` is for its message.
  static Policy parse(const std::string& json, const std::string& path);
  static Policy load(const std::string& path);
  /// The same for a model: check_policy() with the file and the line of what does not fit.
  static Policy load(const std::string& path, nn::Module& model);
};

/// Every layer of `model` alike but for the ends. What has 8 bits on its own account (Ends::eight, Skip::u8)
/// is quantized by `eight_bit`, if that is not empty: quantizers with a fixed range, such as DoReFa's, would
/// clip images and sums. Throws argument_error for bits outside 1 .. 8 and 32.
Policy uniform_policy(nn::Module& model, const LayerPolicy& layer, Skip skip = Skip::u8,
                      Ends ends = Ends::eight, const std::string& eight_bit = {});

/// Throws argument_error, with the nearest known name, unless the policy names exactly the layers of the
/// model.
void check_policy(const Policy& policy, nn::Module& model);

std::string to_string(Skip skip);
std::string to_string(Ends ends);
/// Throw argument_error that lists what is known.
Skip parse_skip(const std::string& name);
Ends parse_ends(const std::string& name);

}  // namespace stairgrad::quant
