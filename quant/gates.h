// Choices of a bit selector as gates, one-hot over candidates.
#pragma once

#include "../autograd/tensor.h"
#include "../kernels/random.h"

namespace stairgrad::quant {

/// One-hot gates (n, sites, candidates) at the largest of logits (n, sites * candidates), the first of
/// equals: what runs when the selector is used. No gradient.
Tensor hard_gates(const Tensor& logits, int64_t candidates);
/// The same forward; the gradient is that of softmax (CADyQ's straight-through gates).
Tensor straight_through_gates(const Tensor& logits, int64_t candidates);
/// One-hot at the largest of logits with Gumbel noise; the gradient is that of softmax((logits + noise) /
/// temperature).
Tensor gumbel_gates(const Tensor& logits, int64_t candidates, double temperature, Philox rng);
/// (n, candidates) of one site.
Tensor gates_of(const Tensor& gates, int64_t site);

}  // namespace stairgrad::quant
