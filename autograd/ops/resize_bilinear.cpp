// Linear interpolation between pixel centres along each axis: output i lies at (i + 1/2) h / oh - 1/2,
// clamped to the edges. Made of index_select, whose adjoint is index_add.
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

Tensor resize_axis(const Tensor& x, int axis, int64_t to) {
  const int64_t from = x.dim(axis);
  if (from == to) return x;
  std::vector<int32_t> low, high;
  std::vector<double> share;  // of high
  for (int64_t i = 0; i < to; ++i) {
    const double centre =
        (static_cast<double>(i) + 0.5) * static_cast<double>(from) / static_cast<double>(to) - 0.5;
    const double at = std::max(0.0, centre);
    const auto below = std::min(static_cast<int64_t>(at), from - 1);
    low.push_back(static_cast<int32_t>(below));
    high.push_back(static_cast<int32_t>(std::min(below + 1, from - 1)));
    share.push_back(at - static_cast<double>(below));
  }
  Shape shape{to};
  for (int i = axis + 1; i < x.rank(); ++i) shape.push_back(1);
  const Tensor weight = cast(Array::of(share, shape), x.dtype());
  const Tensor a = index_select(x, axis, Array::of(low)), b = index_select(x, axis, Array::of(high));
  return a + (b - a) * weight;
}

}  // namespace

Tensor resize_bilinear(const Tensor& x, int64_t oh, int64_t ow) {
  check(x.rank() == 4 && x.dim(1) > 0 && x.dim(2) > 0 && oh > 0 && ow > 0, "[resize_bilinear] got ",
        x.shape(), " to ", oh, " x ", ow, ", expected (n, h, w, c) and extents above 0");
  return resize_axis(resize_axis(x, 1, oh), 2, ow);
}

std::vector<Sample> resize_bilinear_samples() {
  return {{"(2,3,4,2) to 5x2",
           [](const Tensors& t) { return resize_bilinear(t[0], 5, 2); },
           {sample_tensor({2, 3, 4, 2})}},
          {"(1,1,1,1) to 2x3",
           [](const Tensors& t) { return resize_bilinear(t[0], 2, 3); },
           {sample_tensor({1, 1, 1, 1})}}};
}

}  // namespace stairgrad
