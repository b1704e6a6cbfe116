// What batch norms normalise, for losses on its statistics.
#pragma once

#include <vector>

#include "../nn/layers.h"
#include "../nn/model.h"

namespace stairgrad::quant {

/// While it lives, keeps what every BatchNorm2d of a model normalises, in the order in which they run.
class BatchNormInputs {
 public:
  explicit BatchNormInputs(nn::Model& model);
  ~BatchNormInputs();
  BatchNormInputs(const BatchNormInputs&) = delete;
  BatchNormInputs& operator=(const BatchNormInputs&) = delete;

  struct Seen {
    const nn::BatchNorm2d* norm;
    Tensor x;
  };
  /// Since the last clear().
  const std::vector<Seen>& seen() const { return seen_; }
  void clear() { seen_.clear(); }
  /// How many batch norms the model has.
  size_t layers() const { return norms_.size(); }

 private:
  std::vector<nn::BatchNorm2d*> norms_;
  std::vector<Seen> seen_;
};

}  // namespace stairgrad::quant
