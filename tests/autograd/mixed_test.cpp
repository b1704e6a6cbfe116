// bf16 activations with f32 parameters: the only mixture of types.
#include <doctest/doctest.h>

#include "../../autograd/ops.h"
#include "common.h"

using namespace stairgrad;

namespace {

// The inputs as they are (the first ones bf16), against the same numbers in f64: values and gradients keep
// their types and agree within bf16's rounding.
void check_mixed(const TensorFunction& function, const Tensors& inputs, double tolerance) {
  Tensors leaves;
  for (const Tensor& t : inputs) leaves.push_back(Tensor::leaf(t.value()));
  const Arrays got = value_and_gradients(function, leaves, 3);
  const Arrays expected = value_and_gradients(function, leaves_of(inputs, DType::f64), 3);
  REQUIRE(got.size() == inputs.size() + 1);
  CHECK(got[0].dtype() == DType::bf16);
  for (size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i);
    if (i > 0) CHECK(got[i].dtype() == inputs[i - 1].dtype());
    CHECK(difference(got[i], expected[i]) < tolerance);
  }
}

Tensor bf(const Shape& shape, uint64_t stream) {
  return random_normal(shape, Philox(1, stream), 1, DType::bf16);
}
Tensor f32(const Shape& shape, uint64_t stream) { return random_normal(shape, Philox(1, stream)); }

// <gradients, fixed weights>: what a loss on gradients looks like.
TensorFunction gradient_of(const TensorFunction& function) {
  return [=](const Tensors& t) {
    const Tensor y = function(t);
    const Tensor u = random_normal(y.shape(), Philox(9), 1, y.dtype());
    const Tensors g = grad({y}, t, {.create_graph = true, .grad_outputs = {u}});
    Tensor total;
    for (const Tensor& part : g) {
      const Tensor term = sum(cast(square(part), t[1].dtype()));
      total = total.defined() ? total + term : term;
    }
    return cast(total, t[0].dtype());
  };
}

}  // namespace

TEST_CASE("mixed: conv2d, and its adjoints by the second order") {
  for (const int64_t groups : {1, 2, 4}) {
    CAPTURE(groups);
    const TensorFunction conv = [=](const Tensors& t) {
      return conv2d(t[0], t[1], Conv2dOptions::with(1, 1, groups));
    };
    const Tensors inputs = {bf({2, 6, 5, 4}, 1), f32({8, 3, 3, 4 / groups}, 2)};
    check_mixed(conv, inputs, 2e-2);
    check_mixed(gradient_of(conv), inputs, 3e-2);
  }
}

TEST_CASE("mixed: linear") {
  const TensorFunction f = [](const Tensors& t) { return linear(t[0], t[1], t[2]); };
  const Tensors inputs = {bf({6, 5}, 1), f32({4, 5}, 2), f32({4}, 3)};
  check_mixed(f, inputs, 1e-2);
  check_mixed(gradient_of(f), inputs, 3e-2);
  CHECK_THROWS_AS(linear(f32({6, 5}, 1), bf({4, 5}, 2)), argument_error);
}

TEST_CASE("mixed: batch norm") {
  for (const bool relu : {false, true}) {
    const BatchNormOptions options{1e-3, relu};
    const TensorFunction train = [=](const Tensors& t) {
      return batch_norm_train(t[0], t[1], t[2], options, cast(t[3], t[0].dtype())).y;
    };
    const TensorFunction eval = [=](const Tensors& t) {
      const Tensor mean = Array::full({4}, 0.3, t[1].dtype()), var = Array::full({4}, 1.2, t[1].dtype());
      return batch_norm_eval(t[0], t[1], t[2], mean, var, options, cast(t[3], t[0].dtype()));
    };
    const Tensors inputs = {bf({2, 5, 4, 4}, 1), f32({4}, 2), f32({4}, 3), bf({2, 5, 4, 4}, 4)};
    check_mixed(train, inputs, 2e-2);
    check_mixed(eval, inputs, 2e-2);
    check_mixed(gradient_of(train), inputs, 5e-2);
  }
  CHECK_THROWS_AS(batch_norm_train(bf({4, 3}, 1), bf({3}, 2), bf({3}, 3)), argument_error);
  CHECK_THROWS_AS(batch_norm_train(f32({4, 3}, 1), bf({3}, 2), bf({3}, 3)), argument_error);
}
