// What goes before and after reconstruction: equalisation, corrections, and the search of scales.
#include <doctest/doctest.h>

#include <cmath>

#include "../../autograd/recorder.h"
#include "../../quant/ptq/bias_correction.h"
#include "../../quant/ptq/chains.h"
#include "../../quant/ptq/distribution_correction.h"
#include "../../quant/ptq/equalisation.h"
#include "../../quant/ptq/recipes.h"
#include "../../quant/ptq/scale_search.h"
#include "settings.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace {

std::unique_ptr<nn::Model> small_network(const std::string& name = "resnet8", int64_t size = 8) {
  auto model = nn::make_model(name, {.image_size = size, .width = size == 8 ? 0.5 : 0.25});
  nn::initialise(*model, 3);
  model->eval();
  return model;
}
Array some_images(nn::Model& model, int64_t n) { return random_normal(model.input_shape(n), Philox(1)); }
Array logits_of(nn::Model& model, const Array& images) {
  const NoGrad no_grad;
  return model(images).value();
}
// Weights and activations rounded to nearest.
std::shared_ptr<Sites> round_to_nearest(nn::Model& model, int w_bits, int a_bits, const Array& images) {
  const LayerPolicy layer{w_bits, a_bits, "affine", "channel"};
  const auto sites = attach_sites(model, preset_policy(model, layer, Skip::shared, EndsPreset::qdrop));
  Reconstruction(model, *sites, images, ptq_recipe(PtqMethod::rtn, 1)).run();
  return sites;
}

}  // namespace

TEST_CASE("equalisation changes no result and makes the ranges of neighbours alike") {
  for (const std::string name : {"resnet8", "mobilenet_v1"}) {
    CAPTURE(name);
    const auto model = small_network(name, 32);
    for (const nn::NamedTensor& p : model->parameters())  // uneven channels
      if (p.name.ends_with(".bn1.weight") || p.name.ends_with(".1.weight"))
        for (int64_t c = 0; c < p.tensor.size(); ++c)
          Array(p.tensor.value()).data<float>()[c] = 0.05f + 0.4f * static_cast<float>(c % 4);
    const Array images = some_images(*model, 4), before = logits_of(*model, images);
    const std::vector<LayerChain> chains = layer_chains(*model);
    CHECK(chains.front().norm == (name == "resnet8" ? "bn1" : "model.0.1"));
    const EqualisationReport r = equalise(*model, images);
    CHECK(r.pairs >= 3);
    CHECK(r.channels > 0);
    CHECK(r.change < 1e-3);
    CHECK(difference(logits_of(*model, images), before) < 1e-3);
  }
}

TEST_CASE("equalisation gives the two sides of a channel the same range, behind batch norms, too") {
  // Largest |w| of each channel between two layers: of the first one's rows and of the second one's columns.
  const auto ranges = [](nn::Model& model, const std::string& layer, bool rows) {
    const nn::State state = model.state();
    const Array& w = state.at(layer + ".weight");
    const int64_t channels = rows ? w.dim(0) : w.shape().back();
    std::vector<double> largest(static_cast<size_t>(channels));
    for (int64_t i = 0; i < w.size(); ++i) {
      double& r = largest[static_cast<size_t>(rows ? i / (w.size() / channels) : i % channels)];
      r = std::max<double>(r, std::abs(w.data<float>()[i]));
    }
    return largest;
  };
  const auto worst_ratio = [&](nn::Model& model, const std::string& block) {
    const std::vector<double> first = ranges(model, block + ".conv1", true),
                              second = ranges(model, block + ".conv2", false);
    double worst = 1;
    for (size_t c = 0; c < first.size(); ++c)
      worst = std::max({worst, first[c] / second[c], second[c] / first[c]});
    return worst;
  };
  const auto model = small_network();
  for (const nn::NamedTensor& p : model->parameters()) {  // uneven rows, uneven and negative gammas
    Array value = p.tensor.value();
    if (p.name.ends_with("conv1.weight"))
      for (int64_t i = 0; i < value.size(); ++i)
        value.data<float>()[i] *= std::exp2(static_cast<float>(i / (value.size() / value.dim(0)) % 5) - 2);
    if (p.name.ends_with("bn1.weight"))
      for (int64_t c = 0; c < value.size(); ++c)
        value.data<float>()[c] = (c % 2 ? -1 : 1) * (0.05f + 0.4f * static_cast<float>(c % 4));
  }
  for (const nn::NamedModule& m : model->modules())
    if (auto* norm = dynamic_cast<nn::BatchNorm2d*>(m.module)) {
      norm->running_mean.assign(random_normal(norm->running_mean.shape(), Philox(5), 0.2));
      norm->running_var.assign(random_uniform(norm->running_var.shape(), Philox(6), 0.2, 3));
    }
  // Statistics of what reaches the norms scale with the weights before them, so that var / mean^2 stays.
  const auto relative_variances = [&] {
    std::vector<double> all;
    for (const nn::NamedModule& m : model->modules())
      if (const auto* norm = dynamic_cast<nn::BatchNorm2d*>(m.module))
        for (int64_t c = 0; c < norm->running_var.size(); ++c)
          all.push_back(std::log(norm->running_var.data<float>()[c] /
                                 std::pow(norm->running_mean.data<float>()[c], 2)));
    return Array::of<double>(all);
  };
  const Array variances = relative_variances();
  const Array images = some_images(*model, 4), before = logits_of(*model, images);
  for (const char* block : {"layer1.0", "layer2.0", "layer3.0"}) CHECK(worst_ratio(*model, block) > 3);
  CHECK(equalise(*model, images).change < 1e-4);
  for (const char* block : {"layer1.0", "layer2.0", "layer3.0"})
    CHECK(worst_ratio(*model, block) == doctest::Approx(1).epsilon(1e-3));
  CHECK(difference(logits_of(*model, images), before) < 1e-3);
  CHECK(difference(relative_variances(), variances) < 1e-3);
  // What is equal stays as it is.
  const nn::State once = nn::clone(model->state());
  CHECK(equalise(*model, images).change < 1e-4);
  for (const auto& [name, array] : model->state()) {
    CAPTURE(name);
    CHECK(difference(array, once.at(name)) < 1e-3);
  }
}

TEST_CASE("bias correction takes the mean error away") {
  const auto model = small_network(), floats = small_network();
  const Array images = some_images(*model, 64), expected = logits_of(*floats, images);
  const auto sites = round_to_nearest(*model, 2, 8, images);
  const auto mean_error = [&] {
    const std::vector<double> a = logits_of(*model, images).to_vector(), b = expected.to_vector();
    std::vector<double> sum(10);
    for (size_t i = 0; i < a.size(); ++i) sum[i % 10] += (a[i] - b[i]) / 64;
    double worst = 0;
    for (const double s : sum) worst = std::max(worst, std::abs(s));
    return worst;
  };
  const double before = mean_error();
  CHECK(correct_biases(*model, *floats, images) == 8);
  CHECK(mean_error() < 0.2 * before);
}

TEST_CASE(
    "distribution correction moves features, a little, towards the statistics of the batch norms behind") {
  const auto model = small_network();
  const Array features = random_normal({6, 8, 8, 8}, Philox(1), 2);
  const auto moved = [&](int64_t steps) {
    return correct_distribution(*model, 1, FeatureCache(features),
                                {.steps = steps, .batch = 4, .lr = 0.02, .weight = 0.1})
        .run(0, 6);
  };
  CHECK(same_bits(moved(0), features));
  const Array corrected = moved(60);
  CHECK(!same_bits(corrected, features));
  CHECK(difference(corrected, features) < 0.5);
  // A new batch norm expects mean 0 and deviation 1; these features give it twice that or more, and shrink.
  double before = 0, after = 0;
  for (int64_t i = 0; i < features.size(); ++i) {
    before += std::pow(features.data<float>()[i], 2);
    after += std::pow(corrected.data<float>()[i], 2);
  }
  CHECK(after < 0.97 * before);
  const FeatureCache narrow(cast(features, DType::bf16));
  CHECK(correct_distribution(*model, 1, narrow, {.steps = 0}).rows().dtype() == DType::bf16);
  const FeatureCache last(random_normal({2, 2, 2, 32}, Philox(2)));  // the head has no batch norm
  CHECK(correct_distribution(*model, model->head(), last, {}).images() == 0);
}

TEST_CASE("a search of scales keeps only what is better") {
  const auto model = small_network();
  const Array images = some_images(*model, 16), expected = logits_of(*model, images);
  const auto sites = round_to_nearest(*model, 3, 3, images);
  const ScaleSearchReport r =
      search_scales(*model, *sites, images, expected, {.passes = 2, .mutations = 2, .images = 16});
  CHECK(r.tried == static_cast<int64_t>(2 * 2 * sites->sites().size()));
  CHECK(r.kept > 0);
  CHECK(r.after < r.before);
}
