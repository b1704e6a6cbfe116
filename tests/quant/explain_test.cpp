// explain(): what each layer of an integer model does to its values.
#include <doctest/doctest.h>

#include <cmath>

#include "../../autograd/ops.h"
#include "../../autograd/recorder.h"
#include "../../quant/explain.h"
#include "../../quant/lower.h"
#include "../../quant/sites.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace {

std::vector<LayerExplanation> explained(int w_bits, int a_bits) {
  auto model = nn::make_model("resnet8", {.in_channels = 3, .image_size = 12, .classes = 10, .width = 0.5});
  nn::initialise(*model, 3);
  model->eval();
  attach_sites(*model, uniform_policy(*model, {w_bits, a_bits, "ste", "channel"}, Skip::u8, Ends::same));
  const Array images = random_normal(model->input_shape(6), Philox(5));
  calibrate(*model, images);
  const integer::Model lowered =
      lower(trace([&](const Tensors& in) { return (*model)(in[0]); }, {Array::zeros(model->input_shape())}));
  const Array before = (*model)(images).value().clone();
  const std::vector<LayerExplanation> layers = explain(lowered, *model, images);
  CHECK((*model)(images).value().to_vector() == before.to_vector());  // its sites are where they were
  CHECK(layers.size() == lowered.layers.size());
  return layers;
}

}  // namespace

TEST_CASE("distance by hand") {
  const Array x = Array::of<float>({3, 4, 0}), y = Array::of<float>({3, 4, 0.5f});
  CHECK(distance(x, y).sqnr == doctest::Approx(20));
  CHECK(distance(x, y).cosine == doctest::Approx(25 / (5 * std::sqrt(25.25))));
  CHECK(std::isinf(distance(x, x).sqnr));
  CHECK(distance(Array::zeros({2}), Array::zeros({2})).cosine == 1);
  CHECK_THROWS_AS(distance(x, Array::zeros({2})), argument_error);
}

TEST_CASE("explain gives the network its quantizers back when a run fails, and refuses grids by image") {
  auto model = nn::make_model("resnet8", {.in_channels = 3, .image_size = 12, .classes = 10, .width = 0.5});
  nn::initialise(*model, 3);
  model->eval();
  attach_sites(*model, uniform_policy(*model, {2, 2, "ste"}, Skip::u8, Ends::same));
  const Array images = random_normal(model->input_shape(6), Philox(5));
  calibrate(*model, images);
  integer::Model lowered =
      lower(trace([&](const Tensors& in) { return (*model)(in[0]); }, {Array::zeros(model->input_shape())}));
  const std::vector<double> before = (*model)(images).value().to_vector();
  CHECK_THROWS_AS(explain(lowered, *model, Array::zeros({2, 12, 12, 5})), argument_error);
  CHECK((*model)(images).value().to_vector() == before);

  integer::Value& value = lowered.values.back();
  value.alternatives = {{8, value.grid}, {8, value.grid}};
  value.choice = 0;
  CHECK_THROWS_WITH_AS(explain(lowered, *model, images), doctest::Contains("one grid for each value"),
                       argument_error);
}

TEST_CASE("explain says of each layer how far it is from the float network") {
  const auto fine = explained(8, 8), coarse = explained(3, 3);
  int with_distance = 0;
  for (size_t i = 0; i < fine.size(); ++i) {
    CAPTURE(fine[i].name);
    CHECK(fine[i].mismatched == 0);
    CHECK(fine[i].seconds > 0);
    CHECK(fine[i].implementation != "");
    if (fine[i].op == "convolution") CHECK(fine[i].w_bits == 8);
    if (std::isnan(fine[i].alone.sqnr)) continue;
    ++with_distance;
    CHECK(fine[i].alone.sqnr > 25);
    CHECK(fine[i].alone.cosine > 0.99);
    CHECK(fine[i].cumulative.sqnr > 20);
    // Errors add up.
    CHECK(fine[i].cumulative.sqnr < fine[i].alone.sqnr + 3);
  }
  CHECK(with_distance > 7);
  // The same layers with three bits are farther away.
  const auto of_logits = [](const std::vector<LayerExplanation>& layers) { return layers.back(); };
  CHECK(of_logits(fine).op == "convolution");
  CHECK(of_logits(fine).cumulative.sqnr > of_logits(coarse).cumulative.sqnr + 10);
  double saturated = 0;
  for (const LayerExplanation& e : fine)
    saturated = std::max(saturated, std::isnan(e.saturated) ? 0 : e.saturated);
  CHECK(saturated < 0.01);  // ranges are the extremes of these images
}
