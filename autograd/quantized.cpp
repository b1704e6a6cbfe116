// Convolution of codes. The sums are taken in f32, which is exact while they stay below 2^24; a layer that
// could exceed that is split into parts that cannot, and the parts are added in double.
#include "quantized.h"

#include <algorithm>
#include <cmath>

#include "../kernels/elementwise.h"
#include "../kernels/reduce.h"
#include "../kernels/threads.h"
#include "ops/conv2d.h"

namespace stairgrad {

namespace {

// Steps of integers() in one step of the grid: 2 on the even symmetric grids, whose levels are half-integer.
float fineness(const Grid& g) { return g.zero_point == std::nearbyint(g.zero_point) ? 1 : 2; }

// Shaped to broadcast along the outermost axis of an array of `rank`.
Array along_slices(const std::vector<float>& values, int rank) {
  std::vector<int64_t> extents(static_cast<size_t>(rank), 1);
  if (values.size() > 1) extents[0] = static_cast<int64_t>(values.size());
  return Array::of(values, Shape(extents));
}

float largest_integer(const Grid& g) {
  return fineness(g) * std::max(std::abs(static_cast<float>(g.lo) - g.zero_point),
                                std::abs(static_cast<float>(g.hi) - g.zero_point));
}

// Weights as a sum of arrays: in each, an output channel's sum of |w| is at most `budget`.
Arrays parts_within(const Array& weights, double budget) {
  const int64_t channels = weights.dim(0), per_channel = weights.size() / std::max<int64_t>(1, channels);
  const float* w = weights.data<float>();
  Arrays parts;
  for (int64_t c = 0; c < channels; ++c) {
    size_t part = 0;
    double sum = 0;
    for (int64_t i = c * per_channel; i < (c + 1) * per_channel; ++i) {
      const double magnitude = std::abs(w[i]);
      if (sum + magnitude > budget) {
        ++part;
        sum = 0;
      }
      sum += magnitude;
      if (parts.size() <= part) parts.push_back(Array::zeros(weights.shape()));
      parts[part].data<float>()[i] = w[i];
    }
  }
  if (parts.empty()) parts.push_back(weights);
  return parts;
}

// A convolution whose forward multiplies integers; src and weights lie on the given grids.
struct ExactConv2d final : Conv2dOp {
  Grids src_grids, weights_grids;

  ExactConv2d(const Conv2dOptions& options, Grids src, Grids weights)
      : Conv2dOp(options), src_grids(std::move(src)), weights_grids(std::move(weights)) {}

  Arrays forward(const Arrays& in) const override {
    const Quantized src{in[0], src_grids}, weights{in[1], weights_grids};
    const Array unit = kernels::binary(kernels::Binary::mul, src.unit(), weights.unit());
    const double budget = (0x1p24 - 1) / static_cast<double>(largest_integer(src_grids[0]));
    const Arrays parts = parts_within(weights.integers(), budget);
    const Array integers = src.integers();
    Array sums = kernels::conv2d(integers, parts[0], options);
    if (parts.size() > 1) {
      sums = cast(sums, DType::f64);
      for (size_t i = 1; i < parts.size(); ++i)
        kernels::accumulate(sums, cast(kernels::conv2d(integers, parts[i], options), DType::f64));
      sums = cast(sums, DType::f32);
    }
    return {kernels::binary(kernels::Binary::mul, sums, unit)};
  }
};

}  // namespace

Array Quantized::integers() const {
  check(on_grid(), "[quantized] got a tensor without a grid of shape ", value.shape(),
        ", expected the output of a quantizer");
  std::vector<float> steps;
  for (const Grid& g : grids) steps.push_back(fineness(g) * grid::inverse(g.scale));
  const Array inverse = along_slices(steps, value.rank());
  const Array ratio = kernels::binary(kernels::Binary::mul, cast(value.value(), DType::f32), inverse);
  return kernels::unary(kernels::Unary::round, ratio);
}

Array Quantized::unit() const {
  std::vector<float> units;
  for (const Grid& g : grids) units.push_back(g.scale / fineness(g));
  return Array::of(units);
}

Tensor conv2d(const Quantized& src, const Quantized& weights, const Conv2dOptions& options) {
  check(src.on_grid() && weights.on_grid(), "[conv2d] got ", src.on_grid() ? "weights" : "src",
        " without a grid, expected codes on both sides; quantize it or convolve the values");
  check(src.grids.size() == 1, "[conv2d] src: got ", src.grids.size(),
        " grids, expected one for the whole tensor");
  check(weights.grids.size() == 1 || static_cast<int64_t>(weights.grids.size()) == weights.value.dim(0),
        "[conv2d] weights: got ", weights.grids.size(), " grids for the shape ", weights.value.shape(),
        ", expected one, or one for each output channel");
  check(src.value.dtype() == DType::f32 && weights.value.dtype() == DType::f32, "[conv2d] got codes as ",
        name_of(src.value.dtype()), " and ", name_of(weights.value.dtype()), ", expected f32 on both sides");
  kernels::conv2d_shape(src.value.shape(), weights.value.shape(), options);
  return apply_op(ExactConv2d(options, src.grids, weights.grids), {src.value, weights.value});
}

}  // namespace stairgrad
