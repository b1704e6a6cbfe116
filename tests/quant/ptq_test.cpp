// Post-training quantization: the conformance tests of the methods, and what odd inputs do.
#include <doctest/doctest.h>

#include <cmath>

#include "../../autograd/grad.h"
#include "../../autograd/recorder.h"
#include "../../kernels/reduce.h"
#include "../../quant/integer/reference.h"
#include "../../quant/lower.h"
#include "../../quant/ptq/drop.h"
#include "../../quant/ptq/recipes.h"
#include "../../quant/quantizers/affine.h"
#include "../../quant/quantizers/ranges.h"
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
Array f64(const Shape& shape, uint64_t seed, double scale = 1) {
  return random_normal(shape, Philox(seed), scale, DType::f64);
}

}  // namespace

TEST_CASE(
    "T1: the affine grid reproduces every code, ReLU inputs have z = 0, and the data-free family's form is "
    "it") {
  for (int bits = 2; bits <= 8; ++bits) {
    const auto signed_one = make_quantizer("affine", {.bits = bits}),
               relu = make_quantizer("affine", {.bits = bits});
    const Array x = random_normal({64, 9}, Philox(1));
    (*signed_one)(x);
    (*relu)(random_uniform({64, 9}, Philox(2)));
    CHECK(relu->to_grid()[0].zero_point == 0);
    const Grid g = signed_one->to_grid()[0];
    CHECK(g.zero_point > 0);
    for (int code = g.lo; code <= g.hi; ++code) CHECK(grid::encode(grid::decode(code, g), g) == code);

    // GDFQ: S = n / (M - m), Z = round(S m) + 2^(b-1), q = clamp(round(S x - Z)), x = (q + Z) / S.
    const double low = -0.9, high = 1.7, n = (1 << bits) - 1, half = 1 << (bits - 1), s = n / (high - low);
    const double z = std::nearbyint(s * low) + half;
    const Grid same = zero_grid(low, high, bits);
    for (const double v : {-1.5, -0.9, -0.31, 0.0, 0.2, 0.77, 1.7, 2.5}) {
      const double code = std::clamp(std::nearbyint(s * v - z), -half, half - 1);
      const double own = grid::decode(grid::encode(static_cast<float>(v), same), same);
      CHECK(own == doctest::Approx((code + z) / s));
    }
  }
}

TEST_CASE("T2: weights rounded to nearest: at most half a step away, channel by channel") {
  const Array w = random_normal({4, 3, 3, 5}, Philox(4));
  for (const int bits : {7, 8}) {
    const auto q =
        make_quantizer("affine:range=minmax", {.bits = bits, .weight = true, .per_channel = true}, 4);
    const Array y = (*q)(w).value.value();
    for (int64_t c = 0; c < 4; ++c) {
      const Array channel = w.slice(c, 1);
      const double high = kernels::reduce(kernels::Reduction::max, channel).item(),
                   low = kernels::reduce(kernels::Reduction::min, channel).item();
      const double step = q->to_grid()[static_cast<size_t>(c)].scale;
      // 8-bit weights are symmetric here, so that they fit the integer runtime.
      CHECK(step == doctest::Approx(bits == 8 ? std::max(high, -low) / 127 : (high - low) / 127));
      // An integer zero point moves the grid by up to half a step, which clips one end by as much.
      for (int64_t i = 0; i < 45; ++i) {
        const double x = w.data<float>()[c * 45 + i], away = std::abs(x - y.data<float>()[c * 45 + i]);
        const bool at_an_end = x == high || x == low;
        CHECK(away <= 0.5001 * step * (bits == 7 && at_an_end ? 2 : 1));
      }
    }
  }
}

TEST_CASE("T3: the range of least error is no worse than that of the extremes, whatever the data") {
  std::map<std::string, Array> data = {
      {"normal", random_normal({4000}, Philox(1))},  {"one-sided", random_uniform({4000}, Philox(2))},
      {"constant", Array::full({100}, 0.7)},         {"negative", random_uniform({500}, Philox(3), -2, 0)},
      {"outlier", random_normal({1000}, Philox(4))}, {"many", random_normal({100000}, Philox(5))}};
  data["outlier"].data<float>()[7] = 40;
  data["laplace"] = random_uniform({4000}, Philox(6), -1, 1);
  for (int64_t i = 0; i < 4000; ++i) {
    float& v = data["laplace"].data<float>()[i];
    v = std::copysign(std::log(1 - 0.999f * std::abs(v)), v);
  }
  for (const auto& [name, x] : data)
    for (const int bits : {2, 3, 4, 8})
      for (const bool even : {false, true}) {
        CAPTURE(name);
        const auto values = weighted_values(x.data<float>(), x.size());
        double low = 0, high = 0;
        for (const WeightedValue& v : values) {
          low = std::min<double>(low, v.value);
          high = std::max<double>(high, v.value);
        }
        const Grid widest = even ? symmetric_grid(std::max(high, -low), bits) : zero_grid(low, high, bits);
        const Grid best = least_error_grid(values, bits, even);
        CHECK(quantization_error(values, best, 2.4) <= quantization_error(values, widest, 2.4));
        if (name == "normal" && bits < 4) CHECK(best.scale < 0.8f * widest.scale);
      }
}

TEST_CASE("T4: the moving average of ranges: unbiased, or as the data-free family computes it") {
  const auto correct = make_observer("ema", {}), family = make_observer("ema_compat", {});
  const Array ones = Array::full({10}, 1);
  for (const double expected : {1.0, 5.263157894736843, 17.84812584967956}) {
    correct->observe(ones);
    family->observe(ones);
    CHECK(correct->ranges()[0].high == doctest::Approx(1).epsilon(1e-12));
    CHECK(family->ranges()[0].high == doctest::Approx(expected).epsilon(1e-12));
  }
  for (int i = 3; i < 200; ++i) family->observe(ones);
  CHECK(family->ranges()[0].high == doctest::Approx(1).epsilon(1e-3));
}

TEST_CASE(
    "T5: rounding variables start where soft weights are the weights, and hard ones are rounded half up") {
  const Array w = random_normal({4, 3, 3, 5}, Philox(4));
  for (const int bits : {2, 4, 8}) {
    const auto q =
        make_quantizer("affine:range=minmax", {.bits = bits, .weight = true, .per_channel = true}, 4);
    q->initialise(w);
    const Grids grids = q->to_grid();
    const Rounding rounding(w, grids, "w");
    const NoGrad no_grad;
    const Array soft = rounding.soft(rectified_sigmoid(rounding.variable())).value(), hard = rounding.hard();
    for (int64_t i = 0; i < w.size(); ++i) {
      const Grid& g = grids[static_cast<size_t>(i / 45)];
      const double x = w.data<float>()[i], code = x / g.scale + g.zero_point;
      if (code >= g.lo && code <= g.hi) CHECK(std::abs(soft.data<float>()[i] - x) < 1e-6 * (1 + std::abs(x)));
      const double expected =
          (std::clamp(std::floor(code + 0.5), double(g.lo), double(g.hi)) - g.zero_point) * g.scale;
      if (std::abs(code - std::floor(code) - 0.5) > 1e-4)
        CHECK(hard.data<float>()[i] == doctest::Approx(expected));
    }
  }
  // A fraction of exactly 0, or as good as 1, has a finite variable.
  const Rounding ends(Array::of<float>({0, 1, 2.9999999f, -1, 5, -3}, {1, 6}), {{1, 1, 0, 3}}, "w");
  CHECK(all_finite(ends.variable().value()));
}

TEST_CASE("T6: beta is 20, then falls along a line to 2; the regulariser is zero only for zeros and ones") {
  const BetaSchedule schedule;
  for (const int64_t t : {0, 100, 199, 200}) CHECK(schedule.beta(t, 1000) == doctest::Approx(20));
  CHECK(schedule.beta(600, 1000) == doctest::Approx(11));
  CHECK(schedule.beta(1000, 1000) == doctest::Approx(2));
  CHECK(schedule.warming_up(199, 1000));
  CHECK(!schedule.warming_up(200, 1000));
  const BetaSchedule all{.warmup = 1};
  CHECK(std::isfinite(all.beta(5, 5)));
  for (const double beta : {20.0, 11.0, 2.0}) {
    CHECK(rounding_regulariser(Tensor(Array::of<float>({0, 1, 1, 0})), beta).item() == doctest::Approx(0));
    CHECK(rounding_regulariser(Tensor(Array::full({7}, 0.5)), beta).item() == doctest::Approx(7));
    CHECK(rounding_regulariser(Tensor(Array::of<float>({0, 0.9f})), beta).item() > 0.3);
  }
}

TEST_CASE("T7: gradients of the rounding, the step, the drop and the loss, by finite differences") {
  const Array w = f64({2, 3, 3, 2}, 1, 0.5);
  const Grids grids = {{0.21f, 1, 0, 3}, {0.3f, 2, 0, 3}};
  const Array u = f64({2, 3, 3, 2}, 2);
  const Rounding rounding(w, grids, "w");
  const auto soft = [&](const Tensors& in) {
    return sum(rounding.soft(rectified_sigmoid(in[0])) * Tensor(u));
  };
  // Off the kinks of the clamps: V inside, and codes as they start.
  Array v = cast(random_uniform({2, 3, 3, 2}, Philox(5), -1.5, 1.5), DType::f64);
  CHECK(gradcheck(soft, {Tensor(v)}).error < 1e-6);
  for (const double beta : {20.0, 7.3, 2.0})
    CHECK(gradcheck([&](const Tensors& in) { return rounding_regulariser(rectified_sigmoid(in[0]), beta); },
                    {Tensor(v)})
              .error < 1e-5);

  // x on both clip sides and inside, off levels and thresholds.
  const Grid grid{0.25f, 3, 0, 7};
  Array x = f64({6, 8}, 3, 0.9);
  int below = 0, above = 0;
  for (int64_t i = 0; i < x.size(); ++i) {
    double& value = x.data<double>()[i];
    const double halves = 2 * (value / 0.25 + 3);
    if (std::abs(halves - std::round(halves)) < 0.1) value += 0.05;
    below += value < -0.75;
    above += value > 1;
  }
  CHECK(below > 2);
  CHECK(above > 2);
  const Array step = Array::of<double>({0.25}), upstream = f64({6, 8}, 4);
  for (const double keep : {0.0, 0.5, 1.0})
    for (const int64_t images : {6, 3}) {
      const Choice choice = chosen(keep, 1, 2);
      const Tensor lx = Tensor::leaf(x), ls = Tensor::leaf(step);
      const Tensors own =
          grad({sum(quantize_with_drop(lx, ls, grid, choice, images) * Tensor(upstream))}, {lx, ls});
      const auto promised = [&](const Tensors& in) {
        return sum(drop_surrogate(in[0], in[1], x, step, grid, choice, images) * Tensor(upstream));
      };
      if (keep > 0 || images < 6) CHECK(gradcheck(promised, {Tensor(x), Tensor(step)}).error < 1e-6);
      const Tensor px = Tensor::leaf(x), ps = Tensor::leaf(step);
      const Tensors expected = grad({promised({px, ps})}, {px, ps});
      CHECK(difference(own[0].value(), expected[0].value()) < 1e-9);
      CHECK(own[1].item() == doctest::Approx(expected[1].item()));
    }

  // f32, in one pass, gives what f64 gives: of the drop, too, with whole and broken runs of 256 elements.
  for (const int64_t columns : {8, 53, 200}) {
    const Array wide_x = f64({6, columns}, 3, 0.9), wide_u = f64({6, columns}, 4);
    const Choice choice = chosen(0.5, 1, 2);
    const auto gradients = [&](DType type) {
      const Tensor lx = Tensor::leaf(cast(wide_x, type)), ls = Tensor::leaf(cast(step, type));
      return grad({sum(quantize_with_drop(lx, ls, grid, choice, 4) * Tensor(cast(wide_u, type)))}, {lx, ls});
    };
    const Tensors narrow = gradients(DType::f32), wide = gradients(DType::f64);
    CHECK(difference(narrow[0].value(), wide[0].value()) < 1e-6);
    CHECK(narrow[1].item() == doctest::Approx(wide[1].item()).epsilon(1e-5));
  }
  const Array a = random_normal({3, 5, 5, 16}, Philox(1)), b = random_normal({3, 5, 5, 16}, Philox(2));
  const Tensor la = Tensor::leaf(a), lw = Tensor::leaf(cast(a, DType::f64));
  const Tensor narrow = reconstruction_loss(la, b), wide = reconstruction_loss(lw, cast(b, DType::f64));
  CHECK(narrow.item() == doctest::Approx(wide.item()));
  CHECK(difference(grad(narrow, la).value(), grad(wide, lw).value()) < 1e-6);
}

TEST_CASE("T8: the drop keeps all, nothing or about half, and of the second half of a batch all") {
  const Array x = random_normal({8, 7, 7, 5}, Philox(1));
  const Grid grid{0.2f, 7, 0, 15};
  const Tensor step(Array::of<float>({0.2f}));
  const Array plain = fake_quantize(x, {grid});
  const auto dropped = [&](double keep, int64_t images) {
    return quantize_with_drop(Tensor(x), step, grid, chosen(keep, 3, 4), images).value();
  };
  CHECK(same_bits(dropped(1, 8), plain));
  CHECK(same_bits(dropped(0, 8), x));
  CHECK(same_bits(dropped(0, 3).slice(3, 5).clone(), plain.slice(3, 5).clone()));
  CHECK(same_bits(dropped(0, 3).slice(0, 3).clone(), x.slice(0, 3).clone()));
  const Array half = dropped(0.5, 8);
  int64_t kept = 0;
  for (int64_t i = 0; i < x.size(); ++i) {
    const float value = half.data<float>()[i];
    CHECK((value == x.data<float>()[i] || value == plain.data<float>()[i]));
    kept += value == plain.data<float>()[i];
  }
  CHECK(std::abs(static_cast<double>(kept) / static_cast<double>(x.size()) - 0.5) < 0.05);
  CHECK(!same_bits(half, quantize_with_drop(Tensor(x), step, grid, chosen(0.5, 3, 5), 8).value()));

  const Array other = random_normal({8, 7, 7, 5}, Philox(2));
  CHECK(same_bits(mix(x, other, chosen(1, 1, 1)), x));
  CHECK(same_bits(mix(x, other, chosen(0, 1, 1)), other));
  // Input and activations are mixed by the same law, in f32 and in f64.
  const Array wide =
      quantize_with_drop(Tensor(cast(x, DType::f64)), cast(step, DType::f64), grid, chosen(0.5, 3, 4), 8)
          .value();
  CHECK(same_bits(cast(wide, DType::f32), half));
}

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
