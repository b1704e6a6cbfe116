// A short training: it learns, and the same seed gives the same bits.
#include <doctest/doctest.h>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../kernels/threads.h"
#include "../../nn/checkpoint.h"

using namespace stairgrad;
using namespace stairgrad::nn;

namespace {

constexpr int64_t batch = 32, classes = 4;

// Pictures whose class is the quadrant that is bright.
struct Batch {
  Array images{Shape{batch, 8, 8, 3}}, labels{Shape{batch}, DType::s32};
};

Batch make_batch(uint64_t step) {
  Batch b;
  b.images = random_normal({batch, 8, 8, 3}, Philox(41, step), 0.5);
  for (int64_t i = 0; i < batch; ++i) {
    const int64_t label = static_cast<int64_t>(Philox(42, step).below(static_cast<uint64_t>(i), classes));
    b.labels.data<int32_t>()[i] = static_cast<int32_t>(label);
    for (int64_t h = 0; h < 4; ++h)
      for (int64_t w = 0; w < 12; ++w)
        b.images.data<float>()[((i * 8 + h + label / 2 * 4) * 8 + label % 2 * 4) * 3 + w] += 1;
  }
  return b;
}

struct Run {
  explicit Run(DType dtype)
      : dtype(dtype), model(make_model("resnet8", {.image_size = 8, .classes = classes})) {
    initialise(*model, 7);
    optimiser = std::make_unique<SGD>(std::vector<ParameterGroup>{{parameters(), 1, 1e-4}});
  }
  std::vector<NamedTensor> parameters() const { return model->parameters(); }

  double step(uint64_t number) {
    const Batch b = make_batch(number);
    const Tensor logits = cast((*model)(Tensor(cast(b.images, dtype))), DType::f32);
    const Tensor loss = cross_entropy(logits, b.labels);
    optimiser->step(grad({loss}, optimiser->parameters()), 0.05);
    return loss.item();
  }
  Checkpoint checkpoint() const {
    return {{{"model", model->state()}, {"optimiser", optimiser->state()}}, {}, {}};
  }

  DType dtype;
  std::unique_ptr<Model> model;
  std::unique_ptr<SGD> optimiser;
};

std::map<std::string, std::vector<double>> values(const Checkpoint& checkpoint) {
  std::map<std::string, std::vector<double>> all;
  for (const auto& [part, state] : checkpoint.parts)
    for (const auto& [name, array] : state) all[part + '/' + name] = array.to_vector();
  return all;
}

}  // namespace

TEST_CASE("a short training learns, in f32 and bf16") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    CAPTURE(name_of(dtype));
    Run run(dtype);
    const double first = run.step(0);
    double last = 0;
    for (uint64_t i = 1; i < 30; ++i) last = run.step(i);
    CHECK(first > 1);
    CHECK(last < 0.3);
  }
}

TEST_CASE("the same seed gives the same bits") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Run one(dtype), other(dtype);
    for (uint64_t i = 0; i < 5; ++i) CHECK(one.step(i) == other.step(i));
    CHECK(values(one.checkpoint()) == values(other.checkpoint()));
  }
}

TEST_CASE("a run that was stopped and restored goes on bit for bit") {
  Run whole(DType::f32), first(DType::f32), second(DType::f32);
  for (uint64_t i = 0; i < 3; ++i) whole.step(i), first.step(i);
  second.step(9);  // something to be overwritten
  Checkpoint current = second.checkpoint();
  restore(first.checkpoint(), current);
  for (uint64_t i = 3; i < 6; ++i) CHECK(whole.step(i) == second.step(i));
  CHECK(values(whole.checkpoint()) == values(second.checkpoint()));
}
