// Bits that differ from image to image, as ops: what a bit selector is made of, and what lowering turns into
// the alternatives of the integer runtime.
#pragma once

#include "../autograd/op.h"
#include "../kernels/random.h"

namespace stairgrad::quant {

/// Row i of the result is row i of parts[k], with k the largest of gates[i]. Inputs: gates (n, parts), then
/// the parts, all of one shape (n, ...). The gradient is that of sum_k gates[:, k] * parts[k].
struct ImageChoiceOp final : Op {
  int column;  ///< which column of the integer runtime's choices says k

  explicit ImageChoiceOp(int column) : column(column) {}
  std::string_view name() const override { return "image_choice"; }
  Arrays forward(const Arrays& in) const override;
  Tensors vjp(const Vjp& v) const override;
  Saved saved() const override;
  bool mixed_types() const override { return true; }
  Tensors decompose(const Tensors& in) const override;
  int inputs = 0;  ///< gates and parts
};
Tensor image_choice(const Tensor& gates, const Tensors& parts, int column);

/// What a layer reads whose weights, too, have other bits for each image: every image's part in the channels
/// of its candidate, zeros in those of others. (n, ..., c) -> (n, ..., parts * c); within each of `groups`
/// groups of channels the parts stand side by side, as the weights do in side_by_side(). A layer then makes
/// of an image what the candidate's weights make of its part. Inputs, choice and gradient are those of
/// ImageChoiceOp: the gradient is that of the parts times their gates, side by side.
struct ImageRouteOp final : Op {
  int64_t groups;
  int column;  ///< which column of the integer runtime's choices says which part

  ImageRouteOp(int64_t groups, int column) : groups(groups), column(column) {}
  std::string_view name() const override { return "image_route"; }
  Arrays forward(const Arrays& in) const override;
  Tensors vjp(const Vjp& v) const override;
  Saved saved() const override;
  bool mixed_types() const override { return true; }
  Tensors decompose(const Tensors& in) const override;
  int inputs = 0;  ///< gates and parts
};
Tensor image_route(const Tensor& gates, const Tensors& parts, int64_t groups, int column);
/// Weights (oc, ..., ic / groups) of several candidates for what image_route() gives: joined along the last
/// axis.
Tensor side_by_side(const Tensors& weights);

/// Mean of each channel, then its deviation, of every image: (n, h, w, c) -> (n, 2c), f32, computed in f64. A
/// constant: what a selector reads does not change because it is read.
struct ChannelMomentsOp final : Op {
  std::string_view name() const override { return "channel_moments"; }
  Arrays forward(const Arrays& in) const override;
  bool differentiable(int) const override { return false; }
  bool mixed_types() const override { return true; }
};
Tensor channel_moments(const Tensor& x);

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
