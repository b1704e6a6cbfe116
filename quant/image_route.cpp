#include "image_route.h"

#include <cstring>

#include "../kernels/reduce.h"
#include "image_parts.h"

namespace stairgrad::quant {
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
  const int64_t n = in[0].dim(0), parts = in[0].dim(1);
  const Array chosen = kernels::argmax(in[0]);
  Array result = Array::zeros(routed_shape(in[1].shape(), parts), in[1].dtype());
  if (result.size() == 0) return {result};
  const int64_t channels = in[1].shape().back(), runs = in[1].size() / (n * channels) * groups;
  const size_t run_bytes = in[1].bytes() / static_cast<size_t>(n * runs);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t k = chosen.data<int32_t>()[i];
    const auto* from = static_cast<const char*>(in[1 + static_cast<size_t>(k)].raw());
    auto* to = static_cast<char*>(result.raw());
    for (int64_t run = i * runs; run < (i + 1) * runs; ++run)
      std::memcpy(to + static_cast<size_t>(run * parts + k) * run_bytes,
                  from + static_cast<size_t>(run) * run_bytes, run_bytes);
  }
  return {result};
}

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

}  // namespace stairgrad::quant
