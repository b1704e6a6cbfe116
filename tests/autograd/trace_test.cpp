// Traces: structure without values.
#include <doctest/doctest.h>

#include "../../autograd/ops.h"
#include "../../autograd/recorder.h"
#include "common.h"

using namespace stairgrad;

TEST_CASE("trace: names, scopes, shapes and parameters") {
  const Tensor w = Tensor::leaf(random_normal({4, 3, 3, 3}, Philox(1)), "conv1.weight");
  const auto function = [&](const Tensors& t) {
    Tensor y;
    {
      const Scope block("layer1"), conv("conv1");
      CHECK(Scope::path() == "layer1.conv1");
      y = conv2d(t[0], w, Conv2dOptions::with(2, 1));
    }
    return relu(y);
  };
  const Tensor x = random_normal({2, 8, 8, 3}, Philox(2));
  const Trace traced = trace(function, {x});
  REQUIRE(traced.nodes.size() == 2);
  const Node &conv = *traced.nodes[0], &last = *traced.nodes[1];
  CHECK(conv.scope == "layer1.conv1");
  CHECK(last.scope.empty());
  REQUIRE(conv.op->name() == "conv2d");
  const auto* op = dynamic_cast<const Conv2dOp*>(conv.op.get());
  REQUIRE(op);
  CHECK(op->options.stride[0] == 2);
  CHECK(conv.inputs[1].name() == "conv1.weight");
  CHECK(conv.inputs[1].value().has_value());
  CHECK(!conv.outputs[0].has_value());
  CHECK(!last.inputs[0].value().has_value());
  CHECK(last.inputs[0].node() == traced.nodes[0]);
  CHECK(traced.inputs[0].name() == "input");
  CHECK(traced.outputs[0].node() == traced.nodes[1]);
  CHECK(traced.str() ==
        "layer1.conv1 conv2d (2,8,8,3) (4,3,3,3) -> (2,4,4,4)\n- relu (2,4,4,4) -> (2,4,4,4)\n");
  CHECK(Scope::path().empty());
  CHECK(recording() == Recording::tape);
}

TEST_CASE("trace: constants and stopped gradients stay visible, nothing differentiable is needed") {
  const Tensor constant = Array::full({3}, 2);
  const Trace traced = trace([&](const Tensors& t) { return stop_grad(constant * 2) + t[0]; }, {constant});
  REQUIRE(traced.nodes.size() == 3);
  CHECK(traced.nodes[0]->op->name() == "affine");
  CHECK(traced.nodes[0]->inputs[0].value().has_value());
  CHECK(traced.nodes[1]->op->name() == "stop_grad");
  CHECK(traced.nodes[2]->inputs[0].node() == traced.nodes[1]);
}

TEST_CASE("trace: nests, and goes back to the mode before") {
  const Tensor x = Array::full({3}, 2);
  const NoGrad off;
  size_t inner_nodes = 0;
  const Trace outer = trace(
      [&](const Tensors& t) {
        inner_nodes = trace([](const Tensors& u) { return exp(u[0]); }, {x}).nodes.size();
        return t[0] * t[0];
      },
      {x});
  CHECK(inner_nodes == 1);
  CHECK(outer.nodes.size() == 1);
  CHECK(recording() == Recording::off);
}
