// What a search chooses from, and what a choice costs.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "../../nn/model.h"
#include "../policy.h"

namespace stairgrad::quant {

/// Bits of a layer's weights and of its input.
struct LayerBits {
  int w = 8, a = 8;
  bool operator==(const LayerBits&) const = default;
};
/// One for each layer of a search space.
using BitChoice = std::vector<LayerBits>;

struct SearchLayer {
  std::string name;
  int64_t macs;  ///< for one image
  bool end;      ///< the first or the last layer of the model
};

/// The layers that are searched, and their candidate bits. BOPs of a layer are MACs * w * a; those of a
/// choice count the searched layers alone.
class SearchSpace {
 public:
  /// All layers of `model` but the first and the last one, unless `ends` says these, too. Throws
  /// argument_error for candidates that are none, outside 1 .. 8 or do not ascend.
  SearchSpace(nn::Model& model, std::vector<int> w_bits, std::vector<int> a_bits, bool ends = false);

  const std::vector<SearchLayer>& layers() const { return layers_; }
  const std::vector<int>& w_bits() const { return w_bits_; }
  const std::vector<int>& a_bits() const { return a_bits_; }

  int64_t bops(const BitChoice& choice) const;
  /// All layers with the same bits.
  int64_t bops(LayerBits bits) const { return bops(BitChoice(layers_.size(), bits)); }
  /// Throws argument_error, naming what is possible, for a budget that no choice meets within `tolerance`.
  void check_budget(int64_t bops, double tolerance) const;

  /// How much a layer (by its index) likes some bits.
  using Merit = std::function<double(size_t layer, LayerBits bits)>;
  /// A choice of a great sum of merits with low <= BOPs <= high, by dynamic programming over 4,096 steps of
  /// BOPs with exact sums; of prefixes within the same step the best one alone is kept. So it is the greatest
  /// sum, and none is returned only if there is none, when the BOPs of layers have a common divisor of high /
  /// 4,096 or more, as in residual networks. Otherwise it may lie below the greatest, and a narrow range may
  /// be missed. Either way it is within the limits, and a choice that is best without limits and within them
  /// is returned.
  std::optional<BitChoice> best(const Merit& merit, int64_t low, int64_t high) const;

  /// The policy of a choice: `others` with the bits of the choice; layers that are not searched, and tensors,
  /// as uniform_policy() has them.
  Policy policy(nn::Model& model, const BitChoice& choice, const LayerPolicy& others, Skip skip, Ends ends,
                const std::string& eight_bit = {}) const;
  /// The bits that a policy gives the layers of this space, candidates or not.
  BitChoice choice(const Policy& policy) const;

 private:
  std::vector<SearchLayer> layers_;
  std::vector<int> w_bits_, a_bits_;
};

/// BOPs as papers count them. Which layers they count differs, and is seldom said.
struct Accounting {
  int64_t macs = 0;             ///< of all layers
  int64_t bops = 0;             ///< of all layers at the policy's bits, 32 for floats
  int64_t quantized = 0;        ///< BOPs of all layers but the first and the last
  int64_t with_8bit_ends = 0;   ///< and these two with 8 x 8 bits
  int64_t with_float_ends = 0;  ///< or with 32 x 32
  int64_t all_alike =
      0;  ///< all MACs at the mean BOPs of the quantized layers: for uniform bits MACs * w * a
  int64_t weight_bits = 0;  ///< that all weights take, at the bits of the policy
};
/// Of a policy that fits the model (check_policy()).
Accounting account(nn::Model& model, const Policy& policy);

/// "7.26 G" (1e9) or, with 1024-based units, "6.76 Gi" (2^30): papers use both.
std::string in_giga(double bops, bool binary = false);
/// Of "365M", "7.4G", "1500000": K, M, G and T are powers of 1000. Throws argument_error for anything else.
int64_t parse_bops(const std::string& word);

}  // namespace stairgrad::quant
