#include "batch_norm.h"

#include <cmath>

#include "../../kernels/norm.h"
#include "../op_table.h"
#include "../ops.h"
#include "../recorder.h"

namespace stairgrad {
namespace {

Axes batch_axes(const Tensor& x) {
  Axes axes;
  for (int i = 0; i < x.rank() - 1; ++i) axes.push_back(i);
  return axes;
}

// (x - mean) / sqrt(var + eps), and the factor, with the statistics of the batch as functions of x.
struct Normalised {
  Tensor x, factor, mean, var;
};
Normalised normalise(const Tensor& x, double eps) {
  const Axes axes = batch_axes(x);
  const Tensor average = mean(x, axes), centred = x - average, variance = mean(square(centred), axes);
  const Tensor factor = rsqrt(variance + eps);
  return {centred * factor, factor, average, variance};
}

Tensor mask_by_relu(const Tensor& u, const Tensor& y, double high) {
  return pass_inside(u, y, 0, high, /*closed=*/false);
}

/// How the gradient finds where the ReLU let it through.
enum class Mask {
  none,  ///< no ReLU
  by_x,  ///< again from x and beta: less to read than y
  by_y   ///< from y, which a skip has changed
};

Mask mask_of(bool relu, bool has_skip) { return !relu ? Mask::none : has_skip ? Mask::by_y : Mask::by_x; }

// The fused first-order vjp. Inputs: x, gamma, mean, var, u and, for the mask, beta or y; mean, var and y are
// constants that follow from x. Outputs: gradients of x, gamma, beta and, if asked for, of the skip.
struct BatchNormBackward final : Op {
  double eps;
  Mask mask;
  bool with_skip;
  double high;

  BatchNormBackward(double eps, Mask mask, bool with_skip, double high)
      : eps(eps), mask(mask), with_skip(with_skip), high(high) {}
  std::string_view name() const override { return "batch_norm_backward"; }
  bool mixed_types() const override { return true; }
  Arrays forward(const Arrays& in) const override {
    const Array y = mask == Mask::by_y ? in[5] : Array(), beta = mask == Mask::by_x ? in[5] : Array();
    kernels::BatchNormGradients g = kernels::batch_norm_backward(in[0], in[2], in[3], in[1], eps, in[4], y,
                                                                 mask != Mask::none, with_skip, beta, high);
    Arrays out = {g.x, g.gamma, g.beta};
    if (with_skip) out.push_back(g.skip);
    return out;
  }
  Tensors vjp(const Vjp& v) const override { return vjp_by_decomposition(*this, v); }
  Saved saved() const override {
    return {.inputs =
                mask == Mask::none ? std::vector<int>{0, 1, 2, 3, 4} : std::vector<int>{0, 1, 2, 3, 4, 5}};
  }
  // With n rows, h = (x - mean) r and r = 1 / sqrt(var + eps): gamma r (u - (sum(u) + h sum(u h)) / n).
  Tensors decompose(const Tensors& in) const override {
    const Tensor &x = in[0], &gamma = in[1];
    const Normalised h = normalise(cast(x, gamma.dtype()), eps);
    Tensor u = cast(in[4], gamma.dtype());
    if (mask == Mask::by_y) u = mask_by_relu(u, cast(in[5], gamma.dtype()), high);
    if (mask == Mask::by_x) u = mask_by_relu(u, (h.x * gamma + in[5]).detach(), high);
    const Axes axes = batch_axes(x);
    const Tensor diff_beta = sum(u, axes), diff_gamma = sum(u * h.x, axes);
    const double rows = static_cast<double>(x.size()) / static_cast<double>(gamma.size());
    const Tensor diff_x = gamma * h.factor * (u - (diff_beta + h.x * diff_gamma) / rows);
    Tensors out = {cast(diff_x, x.dtype()), diff_gamma, diff_beta};
    if (with_skip) out.push_back(cast(u, x.dtype()));
    return out;
  }
};

}  // namespace

Arrays BatchNormOp::forward(const Arrays& in) const {
  const Array skip = has_skip ? in[static_cast<size_t>(skip_input())] : Array();
  if (!training) return {kernels::batch_norm(in[0], in[3], in[4], in[1], in[2], eps, skip, relu, high)};
  const kernels::BatchStatistics batch = kernels::batch_statistics(in[0]);
  return {kernels::batch_norm(in[0], batch.mean, batch.var, in[1], in[2], eps, skip, relu, high), batch.mean,
          batch.var};
}

Saved BatchNormOp::saved() const {
  const Mask mask = mask_of(relu, has_skip);
  if (training)
    return {.inputs = mask == Mask::by_x ? std::vector<int>{0, 1, 2} : std::vector<int>{0, 1},
            .outputs = mask == Mask::by_y ? std::vector<int>{0, 1, 2} : std::vector<int>{1, 2}};
  return {.inputs = {0, 1, 3, 4}, .outputs = relu ? std::vector<int>{0} : std::vector<int>{}};
}

Tensors BatchNormOp::vjp(const Vjp& v) const {
  const Tensor &x = v.input(0), &gamma = v.input(1), u = v.grad();
  Tensors gradients(static_cast<size_t>(v.inputs()));
  const bool needs_skip = has_skip && v.needs(skip_input());
  if (training) {
    Tensors in = {x, gamma, v.output(1), v.output(2), u};
    const Mask mask = mask_of(relu, has_skip);
    if (mask == Mask::by_x) in.push_back(v.input(2).detach());
    if (mask == Mask::by_y) in.push_back(v.output(0).detach());
    const bool mask_skip = needs_skip && relu;
    Tensors found = stairgrad::apply(std::make_shared<BatchNormBackward>(eps, mask, mask_skip, high), in);
    for (int i = 0; i < 3; ++i)
      if (v.needs(i)) gradients[static_cast<size_t>(i)] = found[static_cast<size_t>(i)];
    if (needs_skip) gradients[3] = mask_skip ? found[3] : u;
    return gradients;
  }
  const Tensor masked = relu ? mask_by_relu(u, v.output(0).detach(), high) : u;
  const Tensor wide = cast(masked, gamma.dtype()), factor = rsqrt(v.input(4) + eps);
  if (v.needs(0)) gradients[0] = cast(wide * (gamma * factor), x.dtype());
  if (v.needs(1)) gradients[1] = sum(wide * ((cast(x, gamma.dtype()) - v.input(3)) * factor), batch_axes(x));
  if (v.needs(2)) gradients[2] = sum(wide, batch_axes(x));
  if (needs_skip) gradients[5] = masked;
  return gradients;
}

Tensors BatchNormOp::decompose(const Tensors& in) const {
  const Tensor &gamma = in[1], &beta = in[2], x = cast(in[0], gamma.dtype());
  Normalised h;
  if (training)
    h = normalise(x, eps);
  else
    h.x = (x - in[3]) * rsqrt(in[4] + eps);
  Tensor y = h.x * gamma + beta;
  if (has_skip) y = y + cast(in[static_cast<size_t>(skip_input())], gamma.dtype());
  if (relu) y = std::isfinite(high) ? hardtanh(y, 0, high) : stairgrad::relu(y);
  y = cast(y, in[0].dtype());
  return training ? Tensors{y, h.mean, h.var} : Tensors{y};
}

namespace {

void check_arguments(const Tensor& x, const Tensors& per_channel, const BatchNormOptions& options,
                     const Tensor& skip) {
  check(x.rank() >= 2, "[batch_norm] x: got the shape ", x.shape(), ", expected (..., c)");
  const DType type = x.dtype() == DType::bf16 ? DType::f32 : x.dtype();
  for (const Tensor& t : per_channel)
    check(t.shape() == Shape{x.shape().back()} && t.dtype() == type, "[batch_norm] parameters: got ",
          name_of(t.dtype()), t.shape(), ", expected ", name_of(type), Shape{x.shape().back()},
          " because x is ", name_of(x.dtype()), x.shape());
  check(!skip.defined() || (skip.shape() == x.shape() && skip.dtype() == x.dtype()),
        "[batch_norm] skip: got ", name_of(skip.dtype()), skip.shape(), ", expected ", name_of(x.dtype()),
        x.shape(), " as x");
  check(options.high > 0, "[batch_norm] high: got ", options.high, ", expected a limit above 0");
}

// The limit as x's type has it, so that a limited y is recognised.
double limit(const BatchNormOptions& options, const Tensor& x) {
  return x.dtype() == DType::bf16 ? bf16(static_cast<float>(options.high)) : options.high;
}

}  // namespace

BatchNormResult batch_norm_train(const Tensor& x, const Tensor& gamma, const Tensor& beta,
                                 const BatchNormOptions& options, const Tensor& skip) {
  check_arguments(x, {gamma, beta}, options, skip);
  check(x.size() > 0, "[batch_norm] got the empty batch ", x.shape(), ", which has no statistics");
  Tensors in = {x, gamma, beta};
  if (skip.defined()) in.push_back(skip);
  Tensors out = stairgrad::apply(
      std::make_shared<BatchNormOp>(options.eps, options.relu, skip.defined(), true, limit(options, x)), in);
  return {out[0], out[1], out[2]};
}

Tensor batch_norm_eval(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& mean,
                       const Tensor& var, const BatchNormOptions& options, const Tensor& skip) {
  check_arguments(x, {gamma, beta, mean, var}, options, skip);
  check(recording() == Recording::trace || (!mean.requires_grad() && !var.requires_grad()),
        "[batch_norm] got mean or var that require a gradient, but they are constants here; detach() them");
  Tensors in = {x, gamma, beta, mean, var};
  if (skip.defined()) in.push_back(skip);
  return apply_op(BatchNormOp(options.eps, options.relu, skip.defined(), false, limit(options, x)), in);
}

std::vector<Sample> batch_norm_samples() {
  std::vector<Sample> samples;
  // Only the activations are bf16 in bf16.
  const auto parameter = [](const Tensor& t) { return t.dtype() == DType::bf16 ? cast(t, DType::f32) : t; };
  struct Act {
    const char* name;
    BatchNormOptions options;
  };
  for (const Act& act : {Act{"", {1e-3}}, Act{" relu", {1e-3, true}}, Act{" relu to 0.7", {1e-3, true, 0.7}}})
    for (const bool skip : {false, true}) {
      const BatchNormOptions options = act.options;
      const std::string label = text("(2,3,2,4)", act.name, skip ? " skip" : "");
      Tensors in = {sample_tensor({2, 3, 2, 4}, 1), sample_positive({4}, 2), sample_tensor({4}, 3)};
      if (skip) in.push_back(sample_tensor({2, 3, 2, 4}, 4));
      samples.push_back({"train " + label,
                         [=](const Tensors& t) {
                           return batch_norm_train(t[0], parameter(t[1]), parameter(t[2]), options,
                                                   skip ? t[3] : Tensor())
                               .y;
                         },
                         in});
      samples.push_back({"eval " + label,
                         [=](const Tensors& t) {
                           const DType type = parameter(t[1]).dtype();
                           const Tensor mean = cast(sample_tensor({4}, 5), type),
                                        var = cast(sample_positive({4}, 6), type);
                           return batch_norm_eval(t[0], parameter(t[1]), parameter(t[2]), mean, var, options,
                                                  skip ? t[3] : Tensor());
                         },
                         in});
    }
  return samples;
}

}  // namespace stairgrad
