// Convolution of codes. The sums are taken in f32, which is exact while they stay below 2^24; a layer that
// could exceed that is split into parts that cannot, and the parts are added in double.
#include "quantized.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "../kernels/elementwise.h"
#include "../kernels/reduce.h"
#include "../kernels/threads.h"
#include "ops.h"
#include "ops/conv2d.h"
#include "recorder.h"

namespace stairgrad {

namespace {

// Shaped to broadcast along the outermost axis of an array of `rank`.
Array along_slices(const std::vector<float>& values, int rank) {
  std::vector<int64_t> extents(static_cast<size_t>(rank), 1);
  if (values.size() > 1) extents[0] = static_cast<int64_t>(values.size());
  return Array::of(values, Shape(extents));
}

float largest_integer(const Grid& g) {
  return Quantized::fineness(g) * std::max(std::abs(static_cast<float>(g.lo) - g.zero_point),
                                           std::abs(static_cast<float>(g.hi) - g.zero_point));
}

// The largest sum of |w| of an output channel.
double largest_sum(const Array& weights) {
  const int64_t channels = weights.dim(0), per_channel = weights.size() / std::max<int64_t>(1, channels);
  const float* w = weights.data<float>();
  double largest = 0;
  for (int64_t c = 0; c < channels; ++c, w += per_channel)
    largest = std::max(largest, std::accumulate(w, w + per_channel, 0.0,
                                                [](double sum, float x) { return sum + std::abs(x); }));
  return largest;
}

// Weights as a sum of arrays: in each, an output channel's sum of |w| is at most `budget`.
Arrays parts_within(const Array& weights, double budget) {
  if (largest_sum(weights) <= budget) return {weights};
  const int64_t channels = weights.dim(0), per_channel = weights.size() / channels;
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
  return parts;
}

// Values of a tensor in the form `codes`. The gradient of the codes is that of the values by definition.
struct ValuesOfCodes final : Op {
  float unit;

  explicit ValuesOfCodes(float unit) : unit(unit) {}
  std::string_view name() const override { return "values_of_codes"; }
  Arrays forward(const Arrays& in) const override { return {kernels::affine(in[0], unit, 0)}; }
  Tensors vjp(const Vjp& v) const override { return {v.grad()}; }
};

// A convolution whose forward multiplies integers; src and weights lie on the given grids.
struct ExactConv2d final : Conv2dOp {
  Grids src_grids, weights_grids;
  bool codes;  // the form of src

  ExactConv2d(const Conv2dOptions& options, const Quantized& src, const Quantized& weights)
      : Conv2dOp(options), src_grids(src.grids), weights_grids(weights.grids), codes(src.codes) {}

  Arrays forward(const Arrays& in) const override {
    const Quantized src{in[0], src_grids, codes}, weights{in[1], weights_grids};
    const Array unit = kernels::binary(kernels::Binary::mul, src.unit(), weights.unit());
    const double budget = (0x1p24 - 1) / static_cast<double>(largest_integer(src_grids[0]));
    const Arrays parts = parts_within(weights.integers(), budget);
    if (codes && parts.size() == 1)
      return {kernels::conv2d(in[0], parts[0], options, for_each_channel(unit, in[1].dim(0)))};
    const Array integers = cast(src.integers(), DType::f32);
    Array sums = kernels::conv2d(integers, parts[0], options);
    if (parts.size() > 1) {
      sums = cast(sums, DType::f64);
      for (size_t i = 1; i < parts.size(); ++i)
        kernels::accumulate(sums, cast(kernels::conv2d(integers, parts[i], options), DType::f64));
      sums = cast(sums, DType::f32);
    }
    return {cast(kernels::binary(kernels::Binary::mul, sums, unit), in[0].dtype())};
  }

  Tensors vjp(const Vjp& v) const override {
    if (!codes) return Conv2dOp::vjp(v);
    const Tensor u = v.grad();
    const Shape &src = v.input_shape(0), &weights = v.input_shape(1);
    const float unit = Quantized{{}, src_grids}.unit().data<float>()[0];
    Tensor to_weights;
    if (v.needs(1) && recording() == Recording::tape)  // to be differentiated again: by way of the values
      to_weights = conv2d_backward_weights(apply_op(ValuesOfCodes(unit), {v.input(0)}), u, weights, options);
    else if (v.needs(1))
      to_weights = conv2d_backward_weights(v.input(0), u, weights, options) * unit;
    return {v.needs(0) ? conv2d_backward_data(u, v.input(1), src, options) : Tensor(), to_weights};
  }

 private:
  static Array for_each_channel(const Array& unit, int64_t channels) {
    return unit.size() == channels ? unit : Array::full({channels}, unit.data<float>()[0]);
  }
};

}  // namespace

float Quantized::fineness(const Grid& g) { return g.zero_point == std::nearbyint(g.zero_point) ? 1 : 2; }

Array Quantized::integers() const {
  check(on_grid(), "[quantized] got a tensor without a grid of shape ", value.shape(),
        ", expected the output of a quantizer");
  if (codes) return value.value();
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
  check(src.value.dtype() == (src.codes ? DType::bf16 : DType::f32) && weights.value.dtype() == DType::f32,
        "[conv2d] got quantized values as ", name_of(src.value.dtype()), " and ",
        name_of(weights.value.dtype()), ", expected f32 on both sides, or src as codes in bf16");
  kernels::conv2d_shape(src.value.shape(), weights.value.shape(), options);
  return apply_op(ExactConv2d(options, src, weights), {src.value, weights.value});
}

}  // namespace stairgrad
