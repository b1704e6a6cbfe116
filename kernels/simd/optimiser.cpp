// Optimiser updates.
#include "functions.h"

namespace stairgrad::simd::STAIRGRAD_ISA {
namespace {

void sgd(float* w, float* v, const float* g, int64_t n, float lr, float momentum, float weight_decay,
         bool nesterov) {
  const auto update = [=](int64_t i, auto... rest) {
    const F32 weight = load(w + i, rest...);
    const F32 gradient = load(g + i, rest...) + weight_decay * weight;
    const F32 velocity = momentum * load(v + i, rest...) + gradient;
    store(v + i, velocity, rest...);
    store(w + i, weight - lr * (nesterov ? gradient + momentum * velocity : velocity), rest...);
  };
  for_vectors<float>(n, update, update);
}

void adamw(float* w, float* m, float* v, const float* g, int64_t n, const AdamW& options) {
  const auto update = [=, a = options](int64_t i, auto... rest) {
    const F32 gradient = load(g + i, rest...);
    const F32 first = a.beta1 * load(m + i, rest...) + a.rate1 * gradient;
    const F32 second = a.beta2 * load(v + i, rest...) + a.rate2 * (gradient * gradient);
    store(m + i, first, rest...);
    store(v + i, second, rest...);
    store(w + i, a.decay * load(w + i, rest...) - a.step * first / (sqrt(second * a.scale) + a.eps), rest...);
  };
  for_vectors<float>(n, update, update);
}

}  // namespace

void enter_optimiser(Table& table);
void enter_optimiser(Table& table) { table.optimiser = {sgd, adamw}; }

}  // namespace stairgrad::simd::STAIRGRAD_ISA
