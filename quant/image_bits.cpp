#include "image_bits.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../autograd/ops.h"

namespace stairgrad::quant {
namespace {

// Column k of gates, shaped to scale the images of `shape`.
Tensor scale_of(const Tensor& gates, int64_t k, const Shape& shape, DType dtype) {
  std::vector<int64_t> extents(static_cast<size_t>(shape.rank()), 1);
  extents[0] = shape[0];
  return cast(reshape(slice(gates, 1, k, k + 1), Shape(extents)), dtype);
}

Tensor as_sites(const Tensor& logits, int64_t candidates) {
  check(candidates >= 1 && logits.rank() == 2 && logits.dim(1) % candidates == 0, "[gates] got logits ",
        logits.shape(), " for ", candidates, " candidates, expected (n, sites * candidates)");
  return reshape(logits, {logits.dim(0), logits.dim(1) / candidates, candidates});
}

Saved all_inputs(int inputs) {
  Saved all;
  for (int i = 0; i < inputs; ++i) all.inputs.push_back(i);
  return all;
}

// Gradients of gates and parts, where each part is scaled by its gate and gradient_of(k) comes back to it.
template <class F>
Tensors of_parts(const Vjp& v, int inputs, const F& gradient_of) {
  const Tensor& gates = v.input(0);
  Tensors result(static_cast<size_t>(inputs));
  Tensors to_gates;
  for (int k = 1; k < inputs; ++k) {
    const Tensor u = gradient_of(k);
    if (v.needs(k)) result[static_cast<size_t>(k)] = u * scale_of(gates, k - 1, u.shape(), u.dtype());
    if (!v.needs(0)) continue;
    Axes pixels;
    for (int axis = 1; axis < u.rank(); ++axis) pixels.push_back(axis);
    to_gates.push_back(reshape(cast(sum(u * v.input(k), pixels), gates.dtype()), {u.dim(0), 1}));
  }
  if (v.needs(0)) result[0] = concat(to_gates, 1);
  return result;
}

template <class O>
Tensor of_gates_and_parts(O op, const Tensor& gates, const Tensors& parts) {
  check(!parts.empty() && gates.rank() == 2 && gates.dim(1) == static_cast<int64_t>(parts.size()), "[",
        op.name(), "] got gates ", gates.shape(), " for ", parts.size(), " parts, expected (n, parts)");
  for (const Tensor& part : parts)
    check(part.shape() == parts[0].shape() && part.rank() >= 2 && part.dim(0) == gates.dim(0), "[", op.name(),
          "] got a part ", part.shape(), " beside ", parts[0].shape(), " and gates ", gates.shape(),
          ", expected equal shapes with a row for each image");
  Tensors in = {gates};
  in.insert(in.end(), parts.begin(), parts.end());
  op.inputs = static_cast<int>(in.size());
  return apply_op(std::move(op), in);
}

}  // namespace

Arrays ImageChoiceOp::forward(const Arrays& in) const {
  const Array& gates = in[0];
  const int64_t n = gates.dim(0), parts = gates.dim(1);
  Array result(in[1].shape(), in[1].dtype());
  const size_t row_bytes = n ? result.bytes() / static_cast<size_t>(n) : 0;
  const std::vector<double> gate = gates.to_vector();
  for (int64_t i = 0; i < n; ++i) {
    const auto row = gate.begin() + i * parts;
    const auto k = static_cast<size_t>(std::max_element(row, row + parts) - row);
    std::memcpy(static_cast<char*>(result.raw()) + static_cast<size_t>(i) * row_bytes,
                static_cast<const char*>(in[1 + k].raw()) + static_cast<size_t>(i) * row_bytes, row_bytes);
  }
  return {result};
}

Saved ImageChoiceOp::saved() const { return all_inputs(inputs); }

Tensors ImageChoiceOp::decompose(const Tensors& in) const {
  Tensor total;
  for (size_t k = 1; k < in.size(); ++k) {
    const Tensor part = in[k] * scale_of(in[0], static_cast<int64_t>(k) - 1, in[k].shape(), in[k].dtype());
    total = total.defined() ? total + part : part;
  }
  return {total};
}

Tensors ImageChoiceOp::vjp(const Vjp& v) const {
  return of_parts(v, inputs, [&](int) { return v.grad(); });
}

Tensor image_choice(const Tensor& gates, const Tensors& parts, int column) {
  return of_gates_and_parts(ImageChoiceOp(column), gates, parts);
}

namespace {

// (n, ..., c) as (n, pixels, groups, c / groups).
Tensor in_groups(const Tensor& x, int64_t groups) {
  const int64_t n = x.dim(0), c = x.shape().back();
  return reshape(x, {n, x.size() / (n * c), groups, c / groups});
}

Shape routed_shape(const Shape& part, int64_t parts) {
  std::vector<int64_t> extents(part.begin(), part.end());
  extents.back() *= parts;
  return Shape(extents);
}

}  // namespace

Arrays ImageRouteOp::forward(const Arrays& in) const {
  const Array& gates = in[0];
  const int64_t n = gates.dim(0), parts = gates.dim(1);
  Array result = Array::zeros(routed_shape(in[1].shape(), parts), in[1].dtype());
  if (result.size() == 0) return {result};
  const int64_t channels = in[1].shape().back(), runs = in[1].size() / (n * channels) * groups;
  const size_t run_bytes = in[1].bytes() / static_cast<size_t>(n * runs);
  const std::vector<double> gate = gates.to_vector();
  for (int64_t i = 0; i < n; ++i) {
    const auto row = gate.begin() + i * parts;
    const int64_t k = std::max_element(row, row + parts) - row;
    const auto* from = static_cast<const char*>(in[1 + static_cast<size_t>(k)].raw());
    auto* to = static_cast<char*>(result.raw());
    for (int64_t run = i * runs; run < (i + 1) * runs; ++run)
      std::memcpy(to + static_cast<size_t>(run * parts + k) * run_bytes,
                  from + static_cast<size_t>(run) * run_bytes, run_bytes);
  }
  return {result};
}

Saved ImageRouteOp::saved() const { return all_inputs(inputs); }

Tensors ImageRouteOp::decompose(const Tensors& in) const {
  Tensors gated;
  for (size_t k = 1; k < in.size(); ++k)
    gated.push_back(in_groups(
        in[k] * scale_of(in[0], static_cast<int64_t>(k) - 1, in[k].shape(), in[k].dtype()), groups));
  return {reshape(concat(gated, 3), routed_shape(in[1].shape(), static_cast<int64_t>(gated.size())))};
}

Tensors ImageRouteOp::vjp(const Vjp& v) const {
  const Shape part = v.input_shape(1);
  const int64_t width = part.back() / groups;
  const Tensor u = in_groups(v.grad(), groups);  // (n, pixels, groups, parts * width)
  return of_parts(v, inputs, [&](int k) { return reshape(slice(u, 3, (k - 1) * width, k * width), part); });
}

Tensor image_route(const Tensor& gates, const Tensors& parts, int64_t groups, int column) {
  check(groups >= 1 && !parts.empty() && parts[0].rank() >= 2 && parts[0].shape().back() % groups == 0,
        "[image_route] got ", groups, " groups of channels for parts ",
        parts.empty() ? Shape() : parts[0].shape(), ", expected a divisor of the last extent");
  return of_gates_and_parts(ImageRouteOp(groups, column), gates, parts);
}

Tensor side_by_side(const Tensors& weights) {
  return weights.size() == 1 ? weights[0] : concat(weights, weights.at(0).rank() - 1);
}

Arrays ChannelMomentsOp::forward(const Arrays& in) const {
  const Array x = in[0].dtype() == DType::f32 ? in[0] : cast(in[0], DType::f32);
  const int64_t n = x.dim(0), channels = x.dim(3), pixels = x.dim(1) * x.dim(2);
  Array result({n, 2 * channels});
  std::vector<double> sum(static_cast<size_t>(channels)), squares(static_cast<size_t>(channels));
  for (int64_t i = 0; i < n; ++i) {
    std::ranges::fill(sum, 0.0);
    std::ranges::fill(squares, 0.0);
    const float* from = x.data<float>() + i * pixels * channels;
    for (int64_t p = 0; p < pixels; ++p)
      for (int64_t c = 0; c < channels; ++c) {
        const double value = *from++;
        sum[static_cast<size_t>(c)] += value;
        squares[static_cast<size_t>(c)] += value * value;
      }
    float* to = result.data<float>() + i * 2 * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const double mean = sum[static_cast<size_t>(c)] / static_cast<double>(pixels);
      const double var = squares[static_cast<size_t>(c)] / static_cast<double>(pixels) - mean * mean;
      to[c] = static_cast<float>(mean);
      to[channels + c] = static_cast<float>(std::sqrt(std::max(0.0, var)));
    }
  }
  return {result};
}

Tensor channel_moments(const Tensor& x) {
  check(x.rank() == 4 && x.size() > 0, "[channel_moments] got ", x.shape(), ", expected images (n, h, w, c)");
  return apply_op(ChannelMomentsOp{}, {x});
}

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
