#include "average.h"

#include <algorithm>

namespace stairgrad::nn {

WeightAverage::WeightAverage(const Module& model, double decay)
    : model_(model.state()), average_(clone(model_)), decay_(decay) {
  check(decay > 0 && decay < 1, "[average] got the decay ", decay, ", expected a number between 0 and 1");
}

void WeightAverage::update() {
  const double t = updates_.item();
  const auto decay = static_cast<float>(std::min(decay_, (1 + t) / (10 + t)));
  for (const auto& [name, array] : model_) {
    const float* from = array.data<float>();
    float* to = average_.at(name).data<float>();
    for (int64_t i = 0; i < array.size(); ++i) to[i] += (1 - decay) * (from[i] - to[i]);
  }
  ++*updates_.data<double>();
}

void WeightAverage::swap() {
  for (auto& [name, array] : model_) {
    const Array kept = array.clone();
    array.assign(average_.at(name));
    average_.at(name).assign(kept);
  }
}

State WeightAverage::state() const {
  State state = average_;
  state["updates"] = updates_;
  return state;
}

}  // namespace stairgrad::nn
