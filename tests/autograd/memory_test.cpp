// What the record keeps, and for how long: by the allocator's statistics.
#include <doctest/doctest.h>

#include "../../autograd/checkpoint.h"
#include "../../autograd/ops.h"
#include "../../autograd/recorder.h"
#include "../../kernels/allocator.h"
#include "common.h"

using namespace stairgrad;

namespace {

constexpr int64_t elements = 1 << 16;
constexpr size_t one = elements * sizeof(float);

Tensor big_leaf() { return Tensor::leaf(Array::full({elements}, 0.5)); }

}  // namespace

TEST_CASE("memory: the record keeps what the vjps read, and nothing else") {
  const Tensor x = big_leaf();
  const size_t before = memory_stats().in_use;
  {
    Tensor y = x;
    for (int i = 0; i < 10; ++i) y = y + x;  // reads no values
    CHECK(memory_stats().in_use - before == one);
    for (int i = 0; i < 10; ++i) y = tanh(y);  // reads its output
    CHECK(memory_stats().in_use - before == 10 * one);
    const Tensor z = relu(y) * 2;  // relu reads its output, affine nothing
    CHECK(memory_stats().in_use - before == 12 * one);
  }
  CHECK(memory_stats().in_use == before);
  {
    const NoGrad off;
    Tensor y = x;
    for (int i = 0; i < 10; ++i) y = tanh(y);
    CHECK(memory_stats().in_use - before == one);
  }
  CHECK(memory_stats().in_use == before);
}

TEST_CASE("memory: saved values are released while the walk goes on") {
  const Tensor x = big_leaf();
  const int depth = 20;
  const size_t before = memory_stats().in_use;
  Tensor y = x;
  for (int i = 0; i < depth; ++i) y = tanh(y);
  y = sum(y);
  const size_t saved = memory_stats().in_use - before;
  CHECK(saved >= depth * one);
  reset_peak();
  const Tensor g = grad(y, x);
  // The walk adds a few gradients in flight, not one for each saved value; at its end only the result is
  // left.
  CHECK(memory_stats().peak - before <= saved + 5 * one);
  CHECK(memory_stats().in_use - before <= one + 4096);
  CHECK(y.node()->released);
}

TEST_CASE("memory: retain_graph keeps the values") {
  const Tensor x = big_leaf(), y = sum(tanh(tanh(x)));
  const size_t before = memory_stats().in_use;
  grad(y, x, {.retain_graph = true});
  CHECK(memory_stats().in_use == before);
  grad(y, x);
  CHECK(memory_stats().in_use < before);
}

TEST_CASE("memory: checkpoints keep the inputs of a segment alone") {
  const Tensor x = big_leaf();
  const auto segment = [](const Tensors& t) {
    Tensor y = t[0];
    for (int i = 0; i < 10; ++i) y = tanh(y * 1.1);
    return Tensors{y};
  };
  const auto chain = [&](bool recompute) {
    Tensor y = x;
    for (int i = 0; i < 5; ++i) y = recompute ? checkpoint(segment, {y})[0] : segment({y})[0];
    return sum(y);
  };
  const size_t before = memory_stats().in_use;
  reset_peak();
  const Array plain = grad(chain(false), x).value();
  const size_t plain_peak = memory_stats().peak - before;
  reset_peak();
  const Array again = grad(chain(true), x).value();
  const size_t recompute_peak = memory_stats().peak - before;
  CHECK(again.to_vector() == plain.to_vector());
  CHECK(plain_peak >= 50 * one);
  CHECK(recompute_peak <= 24 * one);
}
