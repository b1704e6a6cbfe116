// Mean over bins that cover the plane. Equal bins are a pooling; others are averaged by a matrix for each
// axis.
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

// (to, from): row i averages elements floor(i from / to) to ceil((i + 1) from / to).
Array averaging(int64_t to, int64_t from) {
  Array matrix = Array::zeros({to, from}, DType::f64);
  for (int64_t i = 0; i < to; ++i) {
    const int64_t start = i * from / to, stop = ((i + 1) * from + to - 1) / to;
    for (int64_t j = start; j < stop; ++j)
      matrix.data<double>()[i * from + j] = 1 / static_cast<double>(stop - start);
  }
  return matrix;
}

}  // namespace

Tensor adaptive_avg_pool2d(const Tensor& x, int64_t oh, int64_t ow) {
  check(x.rank() == 4 && x.dim(1) > 0 && x.dim(2) > 0 && oh > 0 && ow > 0, "[adaptive_avg_pool2d] got ",
        x.shape(), " for ", oh, " x ", ow, " bins, expected (n, h, w, c) and bins above 0");
  const int64_t n = x.dim(0), h = x.dim(1), w = x.dim(2), c = x.dim(3);
  if (oh == 1 && ow == 1) return global_avg_pool(x);
  if (h % oh == 0 && w % ow == 0) return avg_pool2d(x, {{h / oh, w / ow}, {h / oh, w / ow}});
  const Tensor rows = cast(averaging(oh, h), x.dtype()), columns = cast(averaging(ow, w), x.dtype());
  const Tensor by_rows = matmul(broadcast_to(rows, {n, oh, h}), reshape(x, {n, h, w * c}));
  const Tensor y = matmul(broadcast_to(columns, {n * oh, ow, w}), reshape(by_rows, {n * oh, w, c}));
  return reshape(y, {n, oh, ow, c});
}

std::vector<Sample> adaptive_avg_pool2d_samples() {
  const auto f = [](int64_t oh, int64_t ow) {
    return [=](const Tensors& t) { return adaptive_avg_pool2d(t[0], oh, ow); };
  };
  return {{"(2,4,6,3) to 2x3", f(2, 3), {sample_tensor({2, 4, 6, 3})}},
          {"(2,5,4,3) to 3x2", f(3, 2), {sample_tensor({2, 5, 4, 3})}},
          {"(1,2,3,2) to 3x5", f(3, 5), {sample_tensor({1, 2, 3, 2})}},
          {"(2,4,6,3) to 1x1", f(1, 1), {sample_tensor({2, 4, 6, 3})}}};
}

}  // namespace stairgrad
