// Loss of each row: -log softmax(x)[label], with label smoothing s against the target t = (1 - s) onehot + s
// / c. vjp: u (softmax(x) - t); the targets are constants.
#include "../../kernels/reduce.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct SoftmaxCrossEntropy final : Op {
  double smoothing;

  explicit SoftmaxCrossEntropy(double smoothing) : smoothing(smoothing) {}
  std::string_view name() const override { return "softmax_cross_entropy"; }
  Arrays forward(const Arrays& in) const override {
    const Array log_p = kernels::log_softmax(in[0]);
    const int64_t rows = in[0].dim(0), classes = in[0].dim(1);
    Array loss(Shape{rows}, in[0].dtype());
    const int32_t* labels = in[1].data<int32_t>();
    dispatch_floating(in[0].dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* p = log_p.data<T>();
      T* out = loss.data<T>();
      for (int64_t i = 0; i < rows; ++i, p += classes) {
        double uniform = 0;
        for (int64_t j = 0; smoothing > 0 && j < classes; ++j) uniform += static_cast<double>(p[j]);
        const double target = (1 - smoothing) * static_cast<double>(p[labels[i]]) +
                              smoothing * uniform / static_cast<double>(classes);
        out[i] = static_cast<T>(-target);
      }
    });
    return {loss};
  }
  Tensors vjp(const Vjp& v) const override {
    const Tensor& x = v.input(0);
    const int64_t rows = x.dim(0), classes = x.dim(1);
    const Tensor target = affine(one_hot(v.input(1), classes, x.dtype()), 1 - smoothing,
                                 smoothing / static_cast<double>(classes));
    return {(softmax(x) - target) * reshape(v.grad(), {rows, 1})};
  }
  Saved saved() const override { return {.inputs = {0, 1}}; }
};

}  // namespace

Tensor cross_entropy(const Tensor& logits, const Tensor& labels, double smoothing) {
  check(logits.rank() == 2 && labels.shape() == Shape{logits.dim(0)} && labels.dtype() == DType::s32,
        "[cross_entropy] got logits ", logits.shape(), " and labels ", name_of(labels.dtype()),
        labels.shape(), ", expected (n, classes) and s32 (n)");
  check(smoothing >= 0 && smoothing < 1, "[cross_entropy] got the smoothing ", smoothing,
        ", expected [0, 1)");
  const int32_t* label = labels.value().data<int32_t>();
  for (int64_t i = 0; i < labels.size(); ++i)
    check(label[i] >= 0 && label[i] < logits.dim(1), "[cross_entropy] label ", i, ": got ", label[i],
          ", expected one of ", logits.dim(1), " classes");
  return mean(apply_op(SoftmaxCrossEntropy{smoothing}, {logits, labels}));
}

std::vector<Sample> cross_entropy_samples() {
  const auto loss = [](std::vector<int32_t> labels, double smoothing) {
    return [labels = Array::of(labels), smoothing](const Tensors& t) {
      return cross_entropy(t[0], labels, smoothing);
    };
  };
  return {{"(4,5)", loss({0, 4, 2, 2}, 0), {sample_tensor({4, 5})}},
          {"(4,5) smoothing 0.1", loss({1, 0, 3, 4}, 0.1), {sample_tensor({4, 5})}},
          {"(1,1)", loss({0}, 0), {sample_tensor({1, 1})}}};
}

}  // namespace stairgrad
