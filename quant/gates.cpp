#include "gates.h"

#include "../autograd/ops.h"

namespace stairgrad::quant {
namespace {

Tensor as_sites(const Tensor& logits, int64_t candidates) {
  check(candidates >= 1 && logits.rank() == 2 && logits.dim(1) % candidates == 0, "[gates] got logits ",
        logits.shape(), " for ", candidates, " candidates, expected (n, sites * candidates)");
  return reshape(logits, {logits.dim(0), logits.dim(1) / candidates, candidates});
}

}  // namespace

Tensor hard_gates(const Tensor& logits, int64_t candidates) {
  return one_hot(argmax(as_sites(logits, candidates)), candidates, logits.dtype());
}

Tensor straight_through_gates(const Tensor& logits, int64_t candidates) {
  const Tensor soft = softmax(as_sites(logits, candidates));
  return stop_grad(hard_gates(logits, candidates) - soft) + soft;
}

Tensor gumbel_gates(const Tensor& logits, int64_t candidates, double temperature, Philox rng) {
  return gumbel_softmax(as_sites(logits, candidates), temperature, rng, /*hard=*/true);
}

Tensor gates_of(const Tensor& gates, int64_t site) {
  return reshape(slice(gates, 1, site, site + 1), {gates.dim(0), gates.dim(2)});
}

}  // namespace stairgrad::quant
