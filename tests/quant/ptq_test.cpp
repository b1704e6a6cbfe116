// Post-training quantization: what the methods do to a network, their recipes, and what odd inputs do.
#include <doctest/doctest.h>

#include <cmath>

#include "../../autograd/grad.h"
#include "../../quant/integer/reference.h"
#include "../../quant/lower.h"
#include "../../quant/ptq/recipes.h"
#include "settings.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace {

std::unique_ptr<nn::Model> small_network(const std::string& name = "resnet8", int64_t classes = 10) {
  auto model = nn::make_model(name, {.image_size = 8, .classes = classes, .width = 0.5});
  nn::initialise(*model, 3);
  model->eval();
  return model;
}
Array some_images(nn::Model& model, int64_t n, uint64_t seed = 1) {
  return random_normal(model.input_shape(n), Philox(seed));
}
std::shared_ptr<Sites> attach(nn::Model& model, int w_bits, int a_bits,
                              EndsPreset preset = EndsPreset::qdrop) {
  return attach_sites(model,
                      preset_policy(model, {w_bits, a_bits, "affine", "channel"}, Skip::shared, preset));
}
ReconstructionOptions quick(PtqMethod method, int64_t iterations = 40) {
  ReconstructionOptions recipe = ptq_recipe(method, iterations);
  recipe.batch = 8;
  return recipe;
}
std::vector<UnitReport> run(nn::Model& model, Sites& sites, const Array& images,
                            const ReconstructionOptions& recipe) {
  std::vector<UnitReport> reports;
  Reconstruction engine(model, sites, images, recipe);
  engine.run({.unit = [&](const UnitReport& r) { reports.push_back(r); }});
  return reports;
}
Array logits_of(nn::Model& model, const Array& images) {
  const NoGrad no_grad;
  model.eval();
  return model(images).value();
}
}  // namespace

TEST_CASE(
    "T9: float logits are those of the tail behind every block, and the network is whole again afterwards") {
  const auto model = small_network();
  const Array images = some_images(*model, 12), expected = logits_of(*model, images);
  Tensor x = images;
  for (size_t block = 0; block < model->blocks().size(); ++block) {
    const NoGrad no_grad;
    x = model->forward(x, block, block + 1);
    CHECK(difference(model->forward(x, block + 1, model->blocks().size()).value(), expected) < 1e-5);
  }
  const auto sites = attach(*model, 8, 8);
  {
    Reconstruction engine(*model, *sites, images, ptq_recipe(PtqMethod::rtn, 1));
    engine.run();
    CHECK(difference(engine.logits(), expected) < 1e-5);
  }
  CHECK(difference(logits_of(*model, images), expected) < 0.05);
  CHECK(difference(logits_of(*model, images), expected) > 0);
  detach_sites(*model);
  CHECK(difference(logits_of(*model, images), expected) < 1e-5);
}

TEST_CASE(
    "T10: every method brings the loss down, 8 bits lose nothing, and rounded weights are what runs in "
    "integers") {
  for (const PtqMethod method :
       {PtqMethod::adaround, PtqMethod::brecq, PtqMethod::qdrop, PtqMethod::pdquant}) {
    CAPTURE(to_string(method));
    const auto model = small_network();
    const Array images = some_images(*model, 32);
    const auto sites =
        attach(*model, 3, 3, method == PtqMethod::brecq ? EndsPreset::brecq : EndsPreset::qdrop);
    double before = 0, after = 0;
    for (const UnitReport& r : run(*model, *sites, images, quick(method, 150))) {
      before += r.before;
      after += r.hard;
      CHECK(std::isfinite(r.soft));
    }
    CHECK(after < before);
    model->eval();
    const integer::Model lowered = lower(
        trace([&](const Tensors& in) { return (*model)(in[0]); }, {Array::zeros(model->input_shape())}));
    const nn::State state = model->state();
    int compared = 0;
    for (const integer::Layer& layer : lowered.layers)
      if (const auto* conv = std::get_if<integer::Convolution>(&layer))
        for (const Sites::Site& site : sites->sites())
          if (site.name == conv->name + ".weight") {
            const NoGrad no_grad;
            const Array codes = (*site.quantizer)(Tensor(state.at(site.name))).integers();
            CHECK(same_bits(cast(conv->weights, DType::f32), codes.reshape(conv->weights.shape())));
            ++compared;
          }
    CHECK(compared == 8);
    const Array logits = integer::evaluate(lowered, images)[static_cast<size_t>(lowered.output)];
    CHECK(difference(logits.reshape({32, 10}), logits_of(*model, images)) < 0.5);
  }
  const auto model = small_network();
  const Array images = some_images(*model, 32);
  const auto sites = attach(*model, 8, 8);
  for (const UnitReport& r : run(*model, *sites, images, quick(PtqMethod::qdrop, 300))) {
    CAPTURE(r.unit);
    CHECK(r.hard <= r.before);
  }
}

TEST_CASE("recipes have the numbers of the papers, and learning rates that grow as iterations get fewer") {
  struct Rates {
    int64_t iterations;
    double rounding, step, pdquant_rounding, brecq_step;
  };
  for (const Rates& rates : {Rates{1000, 1e-2, 8e-4, 1e-2, 1e-3}, Rates{2000, 1e-2, 4e-4, 1e-2, 1e-3},
                             Rates{4000, 5e-3, 2e-4, 1e-2, 1e-3}, Rates{20000, 1e-3, 4e-5, 3e-3, 4e-4},
                             Rates{40000, 1e-3, 4e-5, 3e-3, 4e-4}}) {
    CAPTURE(rates.iterations);
    for (const PtqMethod method :
         {PtqMethod::adaround, PtqMethod::brecq, PtqMethod::qdrop, PtqMethod::pdquant}) {
      CAPTURE(to_string(method));
      const bool pd = method == PtqMethod::pdquant, joint = pd || method == PtqMethod::qdrop;
      const ReconstructionOptions r = ptq_recipe(method, rates.iterations);
      CHECK(r.batch == 32);
      CHECK(r.range_images == 256);
      CHECK(r.ranges_by_block == pd);
      CHECK(!r.skip_first);  // of the preset, not of the method
      REQUIRE(r.phases.size() == (method == PtqMethod::brecq ? 2 : 1));
      const Phase& p = r.phases[0];
      CHECK(p.iterations == rates.iterations);
      CHECK(p.by_layer == (method == PtqMethod::adaround));
      CHECK(p.learn_weights);
      CHECK(p.learn_steps == joint);
      CHECK(p.activations == joint);
      CHECK(p.keep_input == (joint ? 0.5 : 1));
      if (joint) CHECK(p.keep_activation == 0.5);
      CHECK(p.replacement == (method != PtqMethod::brecq));
      CHECK(p.lr_rounding == doctest::Approx(pd ? rates.pdquant_rounding : rates.rounding));
      if (joint) CHECK(p.lr_step == doctest::Approx(rates.step));
      CHECK(p.rounding_weight == 0.01);
      CHECK(p.beta.warmup == 0.2);
      CHECK(p.objectives.reconstruction == 1);
      CHECK(p.objectives.power == 2);
      CHECK(p.objectives.prediction == (pd ? 10 : 0));
      CHECK(p.objectives.prediction_temperature == 4);
      CHECK(!p.objectives.contrastive);
      if (method != PtqMethod::brecq) continue;
      const Phase& steps = r.phases[1];
      CHECK(steps.iterations == rates.iterations / 4);
      CHECK(!steps.learn_weights);
      CHECK(steps.learn_steps);
      CHECK(steps.activations);
      CHECK(steps.keep_input == 1);
      CHECK(steps.keep_activation == 1);
      CHECK(!steps.replacement);
      CHECK(steps.lr_step == doctest::Approx(rates.brecq_step));
      CHECK(steps.objectives.power == 2.4);
    }
  }
  CHECK(ptq_recipe(PtqMethod::rtn, 1000).phases.empty());

  // A first block that is skipped keeps its weights as they are rounded.
  const auto model = small_network(), untouched = small_network();
  const Array images = some_images(*model, 8);
  const auto sites = attach(*model, 2, 2), nearest = attach(*untouched, 2, 2);
  ReconstructionOptions recipe = quick(PtqMethod::brecq, 20);
  recipe.skip_first = true;
  for (const UnitReport& r : run(*model, *sites, images, recipe)) CHECK(r.unit != "stem");
  run(*untouched, *nearest, images, ptq_recipe(PtqMethod::rtn, 1));
  CHECK(same_bits(model->state().at("conv1.weight"), untouched->state().at("conv1.weight")));
  CHECK(
      !same_bits(model->state().at("layer1.0.conv1.weight"), untouched->state().at("layer1.0.conv1.weight")));
}

TEST_CASE("the prediction difference is 10 KL(float || quantized) at temperature 4, without its square") {
  const auto model = small_network();
  Array weight = model->state().at("linear.weight");
  for (int64_t i = 0; i < weight.size(); ++i) weight.data<float>()[i] *= 20;  // predictions that differ
  const Array images = some_images(*model, 8), floats = logits_of(*model, images), before = weight.clone();
  const auto sites = attach(*model, 2, 2);
  ReconstructionOptions recipe = quick(PtqMethod::pdquant, 1);
  Phase& phase = recipe.phases[0];
  phase.objectives.reconstruction = 0;
  phase.lr_rounding = phase.lr_step = 0;  // units become what rounding to nearest makes of them
  phase.keep_input = phase.keep_activation = 1;
  double loss = 0;
  Reconstruction(*model, *sites, images, recipe)
      .run({.iteration = [&](const std::string& unit, int64_t, int64_t, double value) {
        if (unit == "head") loss = value;
      }});
  // In the first step of the last block its soft weights are still the float ones.
  weight.assign(before);
  for (const nn::NamedTap& t : model->taps())
    if (t.name == "linear.weight") t.tap->hook = nullptr;
  const Array logits = logits_of(*model, images);
  const auto log_probability = [](const Array& x, int64_t image, int64_t c) {
    double total = 0;
    for (int64_t k = 0; k < 10; ++k) total += std::exp(x.data<float>()[image * 10 + k] / 4.0);
    return x.data<float>()[image * 10 + c] / 4.0 - std::log(total);
  };
  double by_hand = 0, reversed = 0;
  for (int64_t i = 0; i < 8; ++i)
    for (int64_t c = 0; c < 10; ++c) {
      const double f = log_probability(floats, i, c), q = log_probability(logits, i, c);
      by_hand += 10 * std::exp(f) * (f - q) / 8;
      reversed += 10 * std::exp(q) * (q - f) / 8;
    }
  CHECK(loss == doctest::Approx(by_hand).epsilon(1e-3));
  CHECK(std::abs(reversed / by_hand - 1) > 0.02);
}

TEST_CASE("at 8/8 an image's quantized features are its float ones, and not those of other images") {
  const Array images = some_images(*small_network(), 16);
  for (const Mapping mapping : {Mapping::tail, Mapping::gap, Mapping::flatten}) {
    CAPTURE(to_string(mapping));
    const auto model = small_network();
    const auto sites = attach(*model, 8, 8);
    ReconstructionOptions recipe = quick(PtqMethod::qdrop, 1);
    recipe.phases[0].objectives.contrastive = ContrastiveOptions{.mapping = mapping};
    for (const UnitReport& r : run(*model, *sites, images, recipe)) {
      CAPTURE(r.unit);
      REQUIRE(r.features);
      CHECK(r.features->positive > 0.99);
      CHECK(1 - r.features->positive < 0.1 * (1 - r.features->negative));
      CHECK(r.features->scale == doctest::Approx(1).epsilon(0.05));
    }
  }
}

TEST_CASE("rounding settles, and hardening hardly changes the loss") {
  const auto model = small_network();
  const Array images = some_images(*model, 32);
  const auto sites = attach(*model, 2, 4);
  ReconstructionOptions recipe = quick(PtqMethod::qdrop, 1000);
  recipe.phases[0].rounding_weight = 0.1;  // these blocks have few weights
  int64_t variables = 0;
  double settled = 0, soft = 0, hard = 0;
  for (const UnitReport& r : run(*model, *sites, images, recipe)) {
    variables += r.variables;
    settled += r.settled * static_cast<double>(r.variables);
    soft += r.soft;
    hard += r.hard;
  }
  CHECK(settled > 0.95 * static_cast<double>(variables));
  CHECK(hard < 1.1 * soft);
}

TEST_CASE("a run that goes on after some units ends in the same bits") {
  const Array images = some_images(*small_network(), 16);
  const auto whole = small_network(), parts = small_network();
  const auto whole_sites = attach(*whole, 3, 3), first_sites = attach(*parts, 3, 3);
  run(*whole, *whole_sites, images, quick(PtqMethod::qdrop));
  nn::State units, sites;
  int done = 0;
  {
    Reconstruction engine(*parts, *first_sites, images, quick(PtqMethod::qdrop));
    const auto stop = [&](const UnitReport&) {
      units = engine.state();
      sites = nn::clone(first_sites->state());
      if (++done == 2) throw std::runtime_error("stop");
    };
    CHECK_THROWS_AS(engine.run({.unit = stop}), std::runtime_error);
  }
  const auto again = small_network();
  const auto again_sites = attach(*again, 3, 3);
  again_sites->load_state(sites);
  {
    Reconstruction engine(*again, *again_sites, images, quick(PtqMethod::qdrop));
    engine.load_state(units);
    engine.run();
  }
  const nn::State expected = whole->state();
  for (const auto& [name, array] : again->state()) {
    CAPTURE(name);
    CHECK(same_bits(array, expected.at(name)));
  }
}

TEST_CASE("CL-Calib runs with every critic, mapping and mask, and changes the result") {
  const Array images = some_images(*small_network(), 16);
  const auto result = [&](const std::function<void(Phase&)>& change) {
    const auto model = small_network();
    const auto sites = attach(*model, 2, 2);
    ReconstructionOptions recipe = quick(PtqMethod::qdrop, 25);
    change(recipe.phases[0]);
    for (const UnitReport& r : run(*model, *sites, images, recipe))
      if (recipe.phases[0].objectives.contrastive) {
        REQUIRE(r.features);
        CHECK(std::isfinite(r.features->positive));
      }
    return logits_of(*model, images);
  };
  const Array host = result([](Phase&) {});
  std::vector<std::pair<std::string, ContrastiveOptions>> arms = {
      {"A", {.critic = Critic::A}},
      {"B", {.critic = Critic::B}},
      {"C", {.critic = Critic::C, .bank = true}},
      {"gap", {.mapping = Mapping::gap}},
      {"flatten", {.mapping = Mapping::flatten}},
      {"linear", {.mapping = Mapping::linear}},
      {"masks",
       {.mask_prediction = true, .mask_similarity = 0.9, .reweight = true, .centre = true, .drop = false}}};
  for (const auto& [name, options] : arms) {
    CAPTURE(name);
    const Array y = result([&](Phase& phase) { phase.objectives.contrastive = options; });
    CHECK(all_finite(y));
    CHECK(!same_bits(y, host));
  }
  // The reviewers' arms: alone, and direct objectives.
  CHECK(!same_bits(result([](Phase& p) {
                     p.objectives.contrastive = ContrastiveOptions{};
                     p.objectives.reconstruction = 0;
                   }),
                   host));
  CHECK(!same_bits(result([](Phase& p) { p.objectives.logit_cosine = 1; }), host));
  CHECK(!same_bits(result([](Phase& p) { p.objectives.logit_mse = 1; }), host));
  ContrastiveOptions wrong{.mapping = Mapping::gap, .bank = true};
  CHECK_THROWS_WITH_AS(result([&](Phase& p) { p.objectives.contrastive = wrong; }),
                       doctest::Contains("need the mapping tail"), argument_error);
}

TEST_CASE("presets say what the ends are") {
  const auto model = small_network();
  const LayerPolicy layer{2, 2, "affine", "channel"};
  const Policy qdrop = preset_policy(*model, layer, Skip::shared, EndsPreset::qdrop);
  CHECK(qdrop.layers.at("conv1") == LayerPolicy{8, 8, "affine", "channel"});
  CHECK(qdrop.layers.at("linear").w_bits == 8);
  CHECK(qdrop.tensors.at("layer3.0.output").bits == 8);
  CHECK(qdrop.tensors.at("stem").bits == 2);
  CHECK(preset_policy(*model, layer, Skip::shared, EndsPreset::pdquant) == qdrop);
  const Policy brecq = preset_policy(*model, layer, Skip::shared, EndsPreset::brecq);
  CHECK(brecq.tensors.at("stem").bits == 8);
  CHECK(brecq.layers.at("layer1.0.conv1").a_bits == 8);
  CHECK(brecq.layers.at("layer1.0.conv1").w_bits == 2);
  const Policy same = preset_policy(*model, layer, Skip::shared, EndsPreset::same);
  CHECK(same.layers.at("conv1").w_bits == 2);
  CHECK(same.tensors.at("layer3.0.output").bits == 2);
  CHECK_NOTHROW(attach_sites(*model, brecq));
}

TEST_CASE("odd inputs: few, one or equal images, dead channels, few classes, layers without weights") {
  for (const int64_t images : {1, 3}) {
    const auto model = small_network();
    const auto sites = attach(*model, 4, 4);
    ReconstructionOptions recipe = quick(PtqMethod::pdquant, 12);
    recipe.phases[0].objectives.contrastive = ContrastiveOptions{};
    run(*model, *sites, some_images(*model, images), recipe);
    CHECK(all_finite(logits_of(*model, some_images(*model, 4))));
  }
  {
    const auto model = small_network("resnet8", 2);
    const auto sites = attach(*model, 4, 4);
    ReconstructionOptions recipe = quick(PtqMethod::qdrop, 12);
    recipe.batch = 1;
    recipe.phases[0].objectives.contrastive = ContrastiveOptions{.mask_prediction = true};
    run(*model, *sites, Array::full(model->input_shape(6), 0.3), recipe);
    CHECK(all_finite(logits_of(*model, some_images(*model, 4))));
  }
  {
    // A filter of zeros, and a batch norm that kills its channels.
    const auto model = small_network();
    for (const nn::NamedTensor& p : model->parameters()) {
      Array value = p.tensor.value();
      if (p.name == "layer1.0.conv1.weight" || p.name == "layer2.0.bn1.weight")
        value.assign(Array::zeros(value.shape()));
    }
    const auto sites = attach(*model, 2, 2);
    run(*model, *sites, some_images(*model, 8), quick(PtqMethod::qdrop, 12));
    CHECK(all_finite(logits_of(*model, some_images(*model, 4))));
  }
  {
    // "features" of MobileNetV1 has an activation and no weights.
    auto model = nn::make_model("mobilenet_v1", {.image_size = 32, .classes = 5, .width = 0.25});
    nn::initialise(*model, 3);
    const auto sites = attach(*model, 4, 4);
    const std::vector<UnitReport> reports =
        run(*model, *sites, some_images(*model, 4), quick(PtqMethod::qdrop, 3));
    CHECK(reports.size() == model->blocks().size());
    CHECK(all_finite(logits_of(*model, some_images(*model, 2))));
  }
  const auto model = small_network();
  const auto sites = attach(*model, 4, 4);
  CHECK_THROWS_WITH_AS(Reconstruction(*model, *sites, Array::zeros({0, 8, 8, 3}), {}),
                       doctest::Contains("at least one image"), argument_error);
  ReconstructionOptions small = quick(PtqMethod::qdrop);
  small.memory = 1000;
  Reconstruction engine(*model, *sites, some_images(*model, 16), small);
  CHECK_THROWS_WITH_AS(engine.run(), doctest::Contains("allow more memory"), argument_error);
  const auto other = small_network();
  const auto lsq = attach_sites(*other, uniform_policy(*other, {4, 4, "lsq", "channel"}));
  CHECK_THROWS_WITH_AS(Reconstruction(*other, *lsq, some_images(*other, 2), {}),
                       doctest::Contains("need the quantizer affine"), argument_error);
}

TEST_CASE("with no more images than a batch every step takes them all") {
  // If nothing is learned or dropped, only the images can change the loss from step to step.
  const auto losses = [](int64_t images) {
    const auto model = small_network();
    const auto sites = attach(*model, 2, 2);
    ReconstructionOptions recipe = quick(PtqMethod::qdrop, 6);
    Phase& phase = recipe.phases[0];
    REQUIRE(phase.replacement);
    phase.keep_input = phase.keep_activation = 1;
    phase.lr_rounding = phase.lr_step = 0;
    std::vector<double> all;
    Reconstruction(*model, *sites, some_images(*model, images), recipe)
        .run({.iteration = [&](const std::string& unit, int64_t, int64_t, double loss) {
          if (unit == "layer2.0") all.push_back(loss);
        }});
    REQUIRE(all.size() == 6);
    const auto [least, most] = std::ranges::minmax(all);
    return most / least - 1;
  };
  for (const int64_t images : {5, 8}) CHECK(losses(images) < 1e-3);
  CHECK(losses(9) > 0.01);
}

TEST_CASE(
    "learned borders: halves round as usual, the gradients are those of a soft step, and lowering refuses "
    "them") {
  const auto plain = make_quantizer("affine", {.bits = 3}),
             border = make_quantizer("affine:border=yes", {.bits = 3});
  const Array x = random_uniform({20, 30}, Philox(1), 0, 2);
  const Array expected = (*plain)(x).value.value(), y = (*border)(x).value.value();
  CHECK(difference(y, expected) < 1e-6);
  CHECK(!border->traits().deployable);
  Array b = border->parameters()[1].tensor.value();
  REQUIRE(b.size() == 7);
  b.data<float>()[0] = 0.9f;  // values below 0.9 steps become 0 now
  const Array changed = (*border)(x).value.value();
  const float step = static_cast<float>(border->own_parameters()[0].item());
  int moved = 0;
  for (int64_t i = 0; i < x.size(); ++i) {
    const float v = x.data<float>()[i] / step;
    if (v > 0.51f && v < 0.89f) CHECK(changed.data<float>()[i] == 0);
    if (v > 0.91f) CHECK(changed.data<float>()[i] == y.data<float>()[i]);
    moved += v > 0.51f && v < 0.89f;
  }
  CHECK(moved > 5);
  // d/dborder of the soft function s (gap + sigmoid((part - border) / 0.1)), by hand for one value.
  const Tensor one = Tensor::leaf(Array::of<float>({0.7f * step}));
  const Tensors g = grad(Tensors{sum((*border)(one).value)}, Tensors{border->parameters()[1].tensor});
  const double soft = 1 / (1 + std::exp((0.9 - 0.7) / 0.1));
  CHECK(g[0].value().to_vector()[0] == doctest::Approx(-step * soft * (1 - soft) / 0.1).epsilon(1e-3));
  CHECK(g[0].value().to_vector()[1] == 0);

  const auto model = small_network();
  const Array images = some_images(*model, 8);
  Policy policy =
      preset_policy(*model, {2, 2, "affine:border=yes", "channel"}, Skip::shared, EndsPreset::qdrop);
  const auto sites = attach_sites(*model, policy);
  run(*model, *sites, images, quick(PtqMethod::qdrop, 20));
  CHECK(all_finite(logits_of(*model, images)));
  CHECK_THROWS_AS(
      lower(trace([&](const Tensors& in) { return (*model)(in[0]); }, {Array::zeros(model->input_shape())})),
      argument_error);
}

TEST_CASE("caches in half the memory are bf16 and do the job, and shared memory counts once") {
  const auto model = small_network();
  const Array images = some_images(*model, 16);
  const auto sites = attach(*model, 3, 3);
  ReconstructionOptions recipe = quick(PtqMethod::qdrop, 20);
  const size_t widest = 16 * 8 * 8 * 8 * sizeof(float);
  recipe.memory = 2 * widest;  // three caches need 3 / 2 of it
  bool halved = false;
  recipe.correct = [&](size_t, const FeatureCache& inputs) {
    halved = halved || inputs.rows().dtype() == DType::bf16;
    return FeatureCache(inputs.rows().clone());
  };
  Reconstruction engine(*model, *sites, images, recipe);
  CHECK_NOTHROW(engine.run());
  CHECK(halved);
  CHECK(engine.peak_cache_bytes() <= recipe.memory);
  CHECK(all_finite(logits_of(*model, images)));

  // Behind a block, target and what goes on are one cache; before the first, both are the pictures.
  const auto other = small_network();
  const auto other_sites = attach(*other, 3, 3);
  Reconstruction plain(*other, *other_sites, images, quick(PtqMethod::qdrop, 1));
  plain.run();
  CHECK(plain.peak_cache_bytes() == 3 * widest);
}

TEST_CASE("a tail in bf16 moves the loss a little, and that of a method without a tail not at all") {
  // Of the first step of every unit.
  const auto losses = [](PtqMethod method, DType tail) {
    const auto model = small_network();
    const auto sites = attach(*model, 3, 3);
    ReconstructionOptions recipe = quick(method, 1);
    recipe.tail = tail;
    std::vector<double> all;
    Reconstruction(*model, *sites, some_images(*model, 16), recipe)
        .run({.iteration = [&](const std::string&, int64_t, int64_t, double loss) { all.push_back(loss); }});
    return all;
  };
  CHECK(losses(PtqMethod::qdrop, DType::bf16) == losses(PtqMethod::qdrop, DType::f32));
  const auto narrow = losses(PtqMethod::pdquant, DType::bf16), wide = losses(PtqMethod::pdquant, DType::f32);
  REQUIRE(narrow.size() == wide.size());
  CHECK(narrow != wide);
  CHECK(narrow[0] == doctest::Approx(wide[0]).epsilon(0.01));
}
