// Statistics of batch norms, taken anew.
#include "../../nn/batch_norm_statistics.h"

#include <doctest/doctest.h>

#include <cmath>

#include "../../autograd/ops.h"
#include "../../nn/layers.h"

using namespace stairgrad;

TEST_CASE("reestimate_batch_norms: plain averages over the batches, and nothing else changes") {
  const auto model = nn::make_model("resnet8");
  nn::initialise(*model, 3);
  model->train();
  std::vector<Array> batches;
  for (uint64_t i = 0; i < 3; ++i)
    batches.push_back(random_normal(model->input_shape(2), Philox(4, i), 1 + static_cast<double>(i)));
  const nn::State before = model->state();
  const Array first_weights = before.at("conv1.weight");

  // The first batch norm sees the first convolution of each batch.
  std::vector<double> mean(16), variance(16);
  for (const Array& images : batches) {
    const Tensor y = conv2d(images, first_weights, Conv2dOptions::with(1, 1));
    const auto count = static_cast<double>(y.size()) / 16;
    const std::vector<double> m = stairgrad::mean(y, {0, 1, 2}).value().to_vector(),
                              v = var(y, {0, 1, 2}).value().to_vector();
    for (size_t c = 0; c < 16; ++c) {
      mean[c] += m[c] / 3;
      variance[c] += v[c] * count / (count - 1) / 3;
    }
  }
  std::map<std::string, Array> kept;
  for (const auto& [name, array] : before)
    if (name.find("running_") == std::string::npos) kept[name] = array.clone();

  size_t next = 0;
  nn::reestimate_batch_norms(*model, [&] { return next < batches.size() ? batches[next++] : Array(); });

  CHECK(model->training());
  const nn::State after = model->state();
  for (size_t c = 0; c < 16; ++c) {
    CHECK(after.at("bn1.running_mean").to_vector()[c] == doctest::Approx(mean[c]).epsilon(1e-4));
    CHECK(after.at("bn1.running_var").to_vector()[c] == doctest::Approx(variance[c]).epsilon(1e-4));
  }
  for (const auto& [name, array] : kept) CHECK(after.at(name).to_vector() == array.to_vector());
  for (const nn::NamedModule& m : model->modules())
    if (const auto* norm = dynamic_cast<const nn::BatchNorm2d*>(m.module)) {
      CHECK(norm->momentum == 0.1);
      CHECK(norm->training());
    }
}
