// Nearest neighbour: element floor(i h / oh) of each axis. Made of index_select, whose adjoint is index_add.
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

Tensor resize_axis(const Tensor& x, int axis, int64_t to) {
  const int64_t from = x.dim(axis);
  if (from == to) return x;
  std::vector<int32_t> index;
  for (int64_t i = 0; i < to; ++i) index.push_back(static_cast<int32_t>(i * from / to));
  return index_select(x, axis, Array::of(index));
}

}  // namespace

Tensor resize_nearest(const Tensor& x, int64_t oh, int64_t ow) {
  check(x.rank() == 4 && x.dim(1) > 0 && x.dim(2) > 0 && oh > 0 && ow > 0, "[resize_nearest] got ", x.shape(),
        " to ", oh, " x ", ow, ", expected (n, h, w, c) and extents above 0");
  return resize_axis(resize_axis(x, 1, oh), 2, ow);
}

std::vector<Sample> resize_nearest_samples() {
  return {{"(2,3,4,2) to 5x2",
           [](const Tensors& t) { return resize_nearest(t[0], 5, 2); },
           {sample_tensor({2, 3, 4, 2})}},
          {"(1,1,1,1) to 2x3",
           [](const Tensors& t) { return resize_nearest(t[0], 2, 3); },
           {sample_tensor({1, 1, 1, 1})}}};
}

}  // namespace stairgrad
