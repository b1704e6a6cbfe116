// Batch norms as after a training, for networks that have none.
#pragma once

#include "../../nn/model.h"

namespace stairgrad::quant {

/// Gives batch norms statistics of their own; with `scales` they also get scales, some of them 0 or negative,
/// and all layers biases.
inline void settle_batch_norms(nn::Model& model, bool scales) {
  uint64_t stream = 0;
  const nn::State state = model.state();
  for (auto& [key, array] : state) {
    Array values = array;
    const Philox rng(9, ++stream);
    for (int64_t i = 0; i < values.size(); ++i) {
      float& v = values.data<float>()[i];
      const double u = rng.uniform(static_cast<uint64_t>(i));
      if (key.ends_with("running_mean")) v = static_cast<float>(u - 0.5);
      if (key.ends_with("running_var")) v = static_cast<float>(0.5 + u);
      if (!scales) continue;
      const bool batch_norm = state.count(key.substr(0, key.rfind('.')) + ".running_mean");
      if (batch_norm && key.ends_with(".weight"))
        v = static_cast<float>(i % 7 == 3 ? 0 : (i % 5 == 2 ? -1 : 1) * (0.5 + u));
      if (key.ends_with(".bias")) v = static_cast<float>(0.6 * (u - 0.4));
    }
  }
}

}  // namespace stairgrad::quant
