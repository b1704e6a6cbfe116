// Recomputation gives the same gradients as the record.
#include "../../autograd/checkpoint.h"

#include <doctest/doctest.h>

#include "../../autograd/ops.h"
#include "../../autograd/recorder.h"
#include "common.h"

using namespace stairgrad;

namespace {

const Tensor w = random_normal({3, 3}, Philox(1), 1, DType::f64);

// Two outputs, the second one reads x twice.
Tensors segment(const Tensors& t) {
  const Tensor h = tanh(matmul(t[0], t[1]));
  return {h * t[0], sum(h * h * t[0], {0})};
}
Tensor joined(const Tensors& y) { return y[0] * y[1]; }

}  // namespace

TEST_CASE("checkpoint: values and gradients of the first orders") {
  const Tensors inputs = {random_normal({4, 3}, Philox(2), 1, DType::f64), w};
  const TensorFunction plain = [](const Tensors& t) { return joined(segment(t)); };
  const TensorFunction again = [](const Tensors& t) { return joined(checkpoint(segment, t)); };
  const Arrays expected = value_and_gradients(plain, leaves_of(inputs, DType::f64), 5);
  const Arrays got = value_and_gradients(again, leaves_of(inputs, DType::f64), 5);
  for (size_t i = 0; i < got.size(); ++i) CHECK(difference(got[i], expected[i]) < 1e-14);
  CHECK(gradcheck(again, inputs, 1, 5e-4).error < 1e-6);
  CHECK(gradcheck(again, inputs, 2, 5e-4).error < 1e-5);
}

TEST_CASE("checkpoint: inputs that depend on each other, twice the same input") {
  const TensorFunction function = [](const Tensors& t) {
    const Tensor h = t[0] * t[0];
    return checkpoint([](const Tensors& u) { return Tensors{u[0] * u[1] * exp(u[2])}; }, {h, t[0], t[0]})[0];
  };
  const Tensors inputs = {random_normal({4}, Philox(2), 1, DType::f64)};
  CHECK(gradcheck(function, inputs, 1, 5e-4).error < 1e-6);
  CHECK(gradcheck(function, inputs, 2, 5e-4).error < 1e-5);
}

TEST_CASE("checkpoint: parameters that the function uses by itself get gradients") {
  // The captured tensor is also an ancestor of the argument: its other path must be counted once.
  const TensorFunction function = [](const Tensors& t) {
    const Tensor scale = exp(t[1]), x = t[0] * scale;
    return checkpoint([=](const Tensors& u) { return Tensors{tanh(u[0] * scale) * t[1]}; }, {x})[0];
  };
  const Tensors inputs = {random_normal({4}, Philox(2), 1, DType::f64),
                          random_normal({4}, Philox(3), 1, DType::f64)};
  CHECK(gradcheck(function, inputs, 1, 5e-4).error < 1e-6);
  CHECK(gradcheck(function, inputs, 2, 5e-4).error < 1e-5);
  // Parameters alone are enough.
  const Tensor weight = Tensor::leaf(w.value());
  const Tensor y = checkpoint([&](const Tensors& u) { return Tensors{sum(u[0] * weight)}; }, {w})[0];
  CHECK(difference(grad(y, weight).value(), w.value()) == 0);
}

TEST_CASE("checkpoint: segments nest") {
  const TensorFunction function = [](const Tensors& t) {
    const auto inner = [=](const Tensors& u) { return Tensors{sigmoid(u[0] * t[1])}; };
    return checkpoint([=](const Tensors& u) { return Tensors{square(checkpoint(inner, {u[0] * u[0]})[0])}; },
                      {t[0]})[0];
  };
  const Tensors inputs = {random_normal({4}, Philox(2), 1, DType::f64),
                          random_normal({4}, Philox(3), 1, DType::f64)};
  CHECK(gradcheck(function, inputs, 1, 5e-4).error < 1e-6);
  CHECK(gradcheck(function, inputs, 2, 5e-4).error < 1e-5);
}

TEST_CASE("checkpoint: runs once in the forward, once for each walk, and says which") {
  int first = 0, again = 0;
  const Tensor x = Tensor::leaf(w.value());
  const Tensor y = checkpoint(
      [&](const Tensors& t) {
        ++(recomputing() ? again : first);
        return Tensors{sum(exp(t[0]))};
      },
      {x})[0];
  CHECK(first == 1);
  CHECK(again == 0);
  grad(y, x, {.retain_graph = true});
  grad(y, x);
  CHECK(first == 1);
  CHECK(again == 2);
  CHECK(!recomputing());
}

TEST_CASE("checkpoint: a trace looks inside") {
  const Trace traced = trace([](const Tensors& t) { return checkpoint(segment, t)[0]; }, {w, w});
  CHECK(traced.nodes.front()->op->name() == "matmul");
}
