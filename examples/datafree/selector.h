// What a selector of bits for each image takes, and what it is worth.
#pragma once

#include <functional>
#include <memory>

#include "../../data/loader.h"
#include "../../quant/datafree/dynamic_bits.h"
#include "../../quant/datafree/image_set.h"
#include "../../quant/integer/model.h"
#include "../common/run_directory.h"
#include "../common/table.h"

namespace stairgrad::examples {

/// Of `integer`, which the network of `dynamic` was lowered to and which lives as long as this. Figures go to
/// the result of the run.
class SelectorMeasurements {
 public:
  SelectorMeasurements(std::shared_ptr<const quant::datafree::DynamicBits> dynamic,
                       const quant::integer::Model& integer, RunDirectory& run)
      : dynamic_(std::move(dynamic)), integer_(integer), run_(run) {}

  /// Operations, bytes and time of the selector, beside the `fixed` network of the target's bits; on images
  /// of `set`.
  void measure(const quant::integer::Model& fixed, const quant::datafree::ImageSet& set) const;
  /// Accuracy on test pictures beside other ways to spend the bits, and whether bits go where they are
  /// needed. `transform` makes them what the network sees; `expected` (n, classes): logits of the float
  /// network; `target`: relative BOPs that were asked for; `seed`: of the bits that are dealt out at random;
  /// `warn` hears of a selector that has collapsed or spends other BOPs.
  void judge(const data::Dataset& test, const data::Transform& transform, const Array& expected,
             double target, uint64_t seed, const std::function<void(const std::string&)>& warn);
  /// These ways, with accuracy and BOPs.
  const Table& arms() const { return arms_; }

 private:
  struct Run;
  /// In integers; without choices the network's selector makes them.
  Run run_integers(const data::Dataset& test, const data::Transform& transform,
                   const Array& choices = {}) const;

  std::shared_ptr<const quant::datafree::DynamicBits> dynamic_;
  const quant::integer::Model& integer_;
  RunDirectory& run_;
  Table arms_{{"bits", "accuracy", "BOPs"}};
};

}  // namespace stairgrad::examples
