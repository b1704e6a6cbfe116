// y[i..., j] = 1 where j = index[i...], else 0. Its input is an index, so there is no derivative.
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct OneHot final : Op {
  int64_t depth;
  DType dtype;

  OneHot(int64_t depth, DType dtype) : depth(depth), dtype(dtype) {}
  std::string_view name() const override { return "one_hot"; }
  Arrays forward(const Arrays& in) const override { return {kernels::one_hot(in[0], depth, dtype)}; }
  bool differentiable(int) const override { return false; }
};

}  // namespace

Tensor one_hot(const Tensor& index, int64_t depth, DType dtype) {
  check(index.dtype() == DType::s32, "[one_hot] got an index of type ", name_of(index.dtype()),
        ", expected s32");
  return apply_op(OneHot{depth, dtype}, {index});
}

std::vector<Sample> one_hot_samples() {
  const auto f = [](std::vector<int32_t> index) {
    return [index = Array::of(index)](const Tensors& t) { return t[0] * one_hot(index, 3, t[0].dtype()); };
  };
  return {{"(4) depth 3", f({2, 0, 1, 1}), {sample_tensor({4, 3})}},
          {"(0) depth 3", f({}), {sample_tensor({0, 3})}}};
}

}  // namespace stairgrad
