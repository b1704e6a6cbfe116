#include "optimiser.h"

#include <cmath>
#include <numbers>

#include "../kernels/optimiser.h"

namespace stairgrad::nn {

Optimiser::Optimiser(std::vector<ParameterGroup> groups) : groups_(std::move(groups)) {
  for (const ParameterGroup& group : groups_)
    for (const NamedTensor& p : group.parameters) {
      parameters_.push_back(p.tensor);
      slots_.push_back({p.tensor.value(), {}});
    }
}

void Optimiser::allocate() {
  for (Slot& slot : slots_)
    for (size_t i = 0; i < kinds().size(); ++i) slot.memory.push_back(Array::zeros(slot.value.shape()));
}

void Optimiser::step(const Tensors& gradients, double lr) {
  check(gradients.size() == slots_.size(), "[optimiser] got ", gradients.size(), " gradients for ",
        slots_.size(), " parameters");
  ++*steps_.data<double>();
  size_t i = 0;
  for (const ParameterGroup& group : groups_)
    for (size_t k = 0; k < group.parameters.size(); ++k, ++i)
      update(slots_[i], gradients[i].value(), lr * group.lr_scale, group.weight_decay);
}

State Optimiser::state() const {
  State values;
  const std::vector<std::string> names = kinds();
  size_t i = 0;
  for (const ParameterGroup& group : groups_)
    for (const NamedTensor& p : group.parameters) {
      for (size_t k = 0; k < names.size(); ++k) values[names[k] + '.' + p.name] = slots_[i].memory[k];
      ++i;
    }
  values["steps"] = steps_;
  return values;
}

void Optimiser::load_state(const State& values) {
  State own = state();
  const StateMismatch mismatch = compare(own, values, /*same_types=*/true);
  check(mismatch.none(), "[optimiser] the state belongs to another model or optimiser: ", mismatch.str());
  for (auto& [name, array] : own) array.assign(values.at(name));
}

SGD::SGD(std::vector<ParameterGroup> groups, double momentum, bool nesterov)
    : Optimiser(std::move(groups)), momentum_(momentum), nesterov_(nesterov) {
  allocate();
}

void SGD::update(Slot& slot, const Array& gradient, double lr, double weight_decay) {
  kernels::sgd_step(slot.value, slot.memory[0], gradient, lr, momentum_, weight_decay, nesterov_);
}

AdamW::AdamW(std::vector<ParameterGroup> groups, double beta1, double beta2, double eps)
    : Optimiser(std::move(groups)), beta1_(beta1), beta2_(beta2), eps_(eps) {
  allocate();
}

void AdamW::update(Slot& slot, const Array& gradient, double lr, double weight_decay) {
  kernels::adamw_step(slot.value, slot.memory[0], slot.memory[1], gradient, lr, beta1_, beta2_, eps_,
                      weight_decay, steps());
}

double cosine_schedule(double lr, int64_t step, int64_t steps, int64_t warmup) {
  if (step < warmup) return lr * static_cast<double>(step + 1) / static_cast<double>(warmup);
  const double done =
      static_cast<double>(step - warmup) / static_cast<double>(std::max<int64_t>(1, steps - warmup));
  return lr * 0.5 * (1 + std::cos(std::numbers::pi * std::min(1.0, done)));
}

double step_schedule(double lr, int64_t step, const std::vector<int64_t>& milestones, double gamma) {
  for (const int64_t milestone : milestones)
    if (step >= milestone) lr *= gamma;
  return lr;
}

}  // namespace stairgrad::nn
