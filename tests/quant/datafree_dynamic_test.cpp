// Bits by image: gates, the network that takes them, and its deployment.
#include <doctest/doctest.h>

#include <cmath>
#include <set>
#include <tuple>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../kernels/reduce.h"
#include "../../kernels/threads.h"
#include "../../quant/channel_moments.h"
#include "../../quant/cost.h"
#include "../../quant/datafree/selection_metrics.h"
#include "../../quant/gates.h"
#include "../../quant/image_choice.h"
#include "../../quant/image_route.h"
#include "../../quant/integer/model_file.h"
#include "../../quant/integer/reference.h"
#include "../../quant/integer/session.h"
#include "../folder.h"
#include "dynamic.h"

using namespace stairgrad;
using namespace stairgrad::quant;
using namespace stairgrad::quant::datafree;

TEST_CASE("T19: gates choose in the forward and have the gradient of the mixture") {
  const Tensor x = Tensor::leaf(random_normal({3, 2, 2, 2}, Philox(1), 1, DType::f64));
  const Tensors parts = {x * 0.5, square(x), x + 1.0};
  const Tensor logits = Tensor::leaf(random_normal({3, 3}, Philox(2), 1, DType::f64));
  const Tensor gates = gates_of(straight_through_gates(logits, 3), 0);
  const Tensor y = image_choice(gates, parts, 0);
  for (int64_t i = 0; i < 3; ++i) {
    const double* row = logits.value().data<double>() + i * 3;
    const auto k = static_cast<size_t>(std::max_element(row, row + 3) - row);
    CHECK(same_bytes(y.value().slice(i, 1), parts[k].value().slice(i, 1)));
  }
  const Tensor weight = random_normal({3, 2, 2, 2}, Philox(3), 1, DType::f64);
  const Tensor slope = grad(sum(y * weight), logits);
  const auto soft = [&](const Array& at) {
    const Tensor p = softmax(Tensor(at));
    double total = 0;
    for (int64_t i = 0; i < 3; ++i)
      for (int64_t k = 0; k < 3; ++k)
        for (int64_t j = 0; j < 8; ++j)
          total += p.value().data<double>()[i * 3 + k] * weight.value().data<double>()[i * 8 + j] *
                   parts[static_cast<size_t>(k)].value().data<double>()[i * 8 + j];
    return total;
  };
  for (int64_t i = 0; i < 9; ++i) {
    Array up = logits.value().clone(), down = logits.value().clone();
    up.data<double>()[i] += 1e-5;
    down.data<double>()[i] -= 1e-5;
    CHECK(slope.value().data<double>()[i] == doctest::Approx((soft(up) - soft(down)) / 2e-5).epsilon(1e-6));
  }
  // The op's own derivatives, also of the second order: those of the mixture that it decomposes to, at soft
  // gates.
  const auto mixture = [](const Tensors& t) {
    ImageChoiceOp op(0);
    op.inputs = 3;
    return sum(square(op.decompose(t)[0]));
  };
  const Tensors in = {softmax(Tensor(random_normal({3, 2}, Philox(4), 1, DType::f64))),
                      Tensor(random_normal({3, 2, 2, 2}, Philox(5), 1, DType::f64)),
                      Tensor(random_normal({3, 2, 2, 2}, Philox(6), 1, DType::f64))};
  CHECK(gradcheck(mixture, in).error < 1e-6);
  CHECK_THROWS_AS(image_choice(gates, {x}, 0), argument_error);
}

TEST_CASE("T19: Gumbel gates are one-hot, and have the gradient of the noisy softmax at their temperature") {
  const Tensor logits = Tensor::leaf(random_normal({4, 6}, Philox(2), 1, DType::f64));
  const Tensor weight = random_normal({4, 2, 3}, Philox(3), 1, DType::f64);
  const auto slope_at = [&](double temperature) {
    const Philox rng(9);
    const auto soft = [&](const Tensor& at) {
      return gumbel_softmax(reshape(at, {4, 2, 3}), temperature, rng);
    };
    const Tensor gates = gumbel_gates(logits, 3, temperature, rng);
    const Array place = kernels::argmax(soft(logits).value());
    for (int64_t i = 0; i < 24; ++i)
      CHECK(gates.value().data<double>()[i] == (place.data<int32_t>()[i / 3] == i % 3 ? 1 : 0));
    const Array slope = grad(sum(gates * weight), logits).value();
    for (int64_t i = 0; i < 24; ++i) {
      Array up = logits.value().clone(), down = logits.value().clone();
      up.data<double>()[i] += 1e-5;
      down.data<double>()[i] -= 1e-5;
      const double expected = (sum(soft(up) * weight).item() - sum(soft(down) * weight).item()) / 2e-5;
      CHECK(slope.data<double>()[i] == doctest::Approx(expected).epsilon(1e-5).scale(1e-3));
    }
    return slope;
  };
  CHECK_FALSE(same_bytes(slope_at(1), slope_at(0.5)));
  const Tensor calm = gumbel_gates(logits, 3, 1, Philox(9)), other = gumbel_gates(logits, 3, 1, Philox(10));
  CHECK_FALSE(same_bytes(calm.value(), other.value()));  // noise is noise
}

TEST_CASE("weights of other bits, too: an image meets its candidate's input and weights") {
  for (const int64_t groups : {1, 2, 4}) {
    CAPTURE(groups);
    const Array x = random_normal({5, 6, 6, 4}, Philox(1), 1, DType::f64);
    const Array w = random_normal({8, 3, 3, 4 / groups}, Philox(2), 1, DType::f64);
    const Tensors inputs = {x, Tensor(x) * 2.0, square(Tensor(x))},
                  weights = {w, Tensor(w) + 1.0, Tensor(w) * -0.5};
    const Array logits = random_normal({5, 3}, Philox(3), 1, DType::f64);
    const Tensor gates = gates_of(hard_gates(Tensor(logits), 3), 0);
    const Conv2dOptions options = Conv2dOptions::with(1, 1, groups);
    const Array y = conv2d(image_route(gates, inputs, groups, 0), side_by_side(weights), options).value();
    std::set<size_t> chosen;
    for (int64_t i = 0; i < 5; ++i) {
      const double* row = logits.data<double>() + i * 3;
      const auto k = static_cast<size_t>(std::max_element(row, row + 3) - row);
      chosen.insert(k);
      const Array expected = conv2d(inputs[k], weights[k], options).value();
      for (int64_t j = 0; j < 8 * 36; ++j)
        CHECK(y.data<double>()[i * 288 + j] == doctest::Approx(expected.data<double>()[i * 288 + j]));
    }
    CHECK(chosen.size() > 1);
    // The op's own derivatives are those of the parts times their gates, at soft gates, too.
    const Tensors in = {softmax(Tensor(logits)), Tensor::leaf(inputs[0].value()),
                        Tensor::leaf(inputs[1].value()), Tensor::leaf(inputs[2].value())};
    const auto sides = [&](const Tensors& t, bool own) {
      ImageRouteOp op(groups, 0);
      op.inputs = 4;
      const Tensor routed = own ? image_route(t[0], {t[1], t[2], t[3]}, groups, 0) : op.decompose(t)[0];
      return sum(routed * random_normal(routed.shape(), Philox(9), 1, DType::f64));
    };
    const auto mixture = [&](const Tensors& t) { return sides(t, false); };
    CHECK(gradcheck(mixture, in).error < 1e-6);
    Tensors leaves;
    for (const Tensor& t : in) leaves.push_back(Tensor::leaf(t.value()));
    const Tensors of_op = grad(Tensors{sides(leaves, true)}, leaves),
                  of_mixture = grad(Tensors{sides(leaves, false)}, leaves);
    for (size_t i = 0; i < 4; ++i)
      for (int64_t j = 0; j < of_op[i].size(); ++j)
        CHECK(of_op[i].value().data<double>()[j] ==
              doctest::Approx(of_mixture[i].value().data<double>()[j]).epsilon(1e-9));
  }
  CHECK_THROWS_AS(image_route(Array::zeros({2, 1}), {Array::zeros({2, 3})}, 2, 0), argument_error);
}

TEST_CASE("T17: the selector and its network run in integers, every code as in the quantized evaluation") {
  struct Kind {
    SelectorType type;
    bool weights = false, norms = false;
  };
  for (const auto& [type, weights, norms] :
       {Kind{SelectorType::image}, Kind{SelectorType::offset}, Kind{SelectorType::layer},
        Kind{SelectorType::image, true}, Kind{SelectorType::image, false, true},
        Kind{SelectorType::layer, false, true}, Kind{SelectorType::image, true, true}}) {
    CAPTURE(to_string(type));
    CAPTURE(weights);
    CAPTURE(norms);
    DynamicOptions options;
    options.type = type;
    options.weights = weights;
    options.norms = norms;
    Dynamic d = dynamic(options);
    spread_norms(d);
    const integer::Model model = lowered(d);
    CHECK(integer::selects(model));
    CHECK(integer::choices_of(model) == static_cast<int>(d.bits->sites().size()));
    const Folder folder;
    integer::save(model, folder / "dynamic.safetensors");
    const integer::Model loaded = integer::load(folder / "dynamic.safetensors");
    const int64_t n = 9;
    const Array images = gaudy(random_normal({n, 12, 12, 3}, Philox(33)));
    integer::Session together(loaded, n), kept(loaded, n, true), alone(loaded, 1);
    const Array logits = together.run(images).clone();
    const Array choices = together.choices().clone();
    const Arrays expected = integer::evaluate(loaded, images);
    CHECK(same_bytes(kept.run(images), logits));
    for (size_t v = 0; v < expected.size(); ++v)
      CHECK(same_bytes(kept.value(static_cast<int>(v)), expected[v]));
    bool differ = false;
    for (int64_t i = 0; i < n; ++i) {
      CHECK(same_bytes(alone.run(images.slice(i, 1)), logits.slice(i, 1)));
      CHECK(same_bytes(alone.choices(), choices.slice(i, 1)));
      differ = differ || !same_bytes(choices.slice(i, 1), choices.slice(0, 1));
    }
    CHECK(differ);
    // Choices that come along are used in place of the selector's; its own come to the same.
    CHECK(same_bytes(together.run(images, choices), logits));
    CHECK_FALSE(same_bytes(together.run(images, Array::zeros(choices.shape(), DType::u8)), logits));
    const int own = threads();
    for (const int count : {1, 2, 3}) {
      set_threads(count);
      integer::Session session(loaded, n);
      CHECK(same_bytes(session.run(images), logits));
    }
    set_threads(own);

    // And what was trained is what runs: the float simulation makes the same choices, but for codes at a
    // border.
    const NoGrad no_grad;
    const Array simulated = d.bits->forward(images).value();
    const Array own_choices = d.bits->last_choices();
    int64_t agreed = 0;
    for (int64_t i = 0; i < own_choices.size(); ++i)
      agreed += own_choices.data<uint8_t>()[i] == choices.data<uint8_t>()[i];
    CHECK(agreed > own_choices.size() * 9 / 10);
    CHECK(distance(simulated, logits) < 0.1);
    for (int64_t i = 0; i < n; ++i) {  // in floats an image does not see its batch either
      CHECK(distance(d.bits->forward(images.slice(i, 1)).value(), simulated.slice(i, 1)) < 1e-6);
      CHECK(same_bytes(d.bits->last_choices(), own_choices.slice(i, 1)));
    }

    // Each candidate by itself, whose maps are its own.
    Arrays of_candidates;
    for (int k = 0; norms && k < 3; ++k) {
      CAPTURE(k);
      d.bits->choosing = Choosing::given;
      d.bits->choices = Array::full(choices.shape(), k, DType::u8);
      of_candidates.push_back(together.run(images, d.bits->choices).clone());
      CHECK(distance(d.bits->forward(images).value(), of_candidates.back()) < 0.1);
      if (k > 0) CHECK(distance(of_candidates[0], of_candidates.back()) > 0.2);
    }
  }
}

TEST_CASE(
    "T17: images of other bits in one batch equal those that run alone, for every candidate and batch") {
  const int own = threads();
  for (const char* name : {"resnet8", "resnet8b", "resnet8 with dynamic weights"}) {
    CAPTURE(name);
    DynamicOptions options{.candidates = {2, 4, 5, 8}, .target = 4};
    options.weights = std::string(name).ends_with("weights");
    Dynamic d = dynamic(options, options.weights ? "resnet8" : name);
    const integer::Model model = lowered(d);
    const int64_t most = 17, sites = integer::choices_of(model);
    const Array images = gaudy(random_normal({most, 12, 12, 3}, Philox(33)));
    Array mixed({most, sites}, DType::u8);
    for (int64_t i = 0; i < mixed.size(); ++i)
      mixed.data<uint8_t>()[i] = static_cast<uint8_t>(Philox(3).below(static_cast<uint64_t>(i), 4));
    std::vector<Array> tables = {mixed};
    for (int k = 0; k < 4; ++k) tables.push_back(Array::full(mixed.shape(), k, DType::u8));

    integer::Session alone(model, 1);
    for (const Array& choices : tables) {
      Arrays rows;
      for (int64_t i = 0; i < most; ++i)
        rows.push_back(alone.run(images.slice(i, 1), choices.slice(i, 1)).clone());
      for (const int count : {1, 2})
        for (const int64_t batch : {2, 3, 8, 17}) {
          CAPTURE(batch);
          set_threads(count);
          integer::Session together(model, batch);
          const Array logits = together.run(images.slice(0, batch), choices.slice(0, batch));
          for (int64_t i = 0; i < batch; ++i)
            CHECK(same_bytes(logits.slice(i, 1), rows[static_cast<size_t>(i)]));
        }
      set_threads(own);
    }
  }
}

TEST_CASE("T18: one candidate is the fixed-bit network, bit for bit; its BOPs are the candidate's") {
  for (const bool weights : {false, true}) {
    CAPTURE(weights);
    DynamicOptions options{.candidates = {4}, .target = 4, .quantizer = "ste"};
    options.weights = weights;
    Dynamic d = dynamic(options);
    // The same network without choices: each input goes through the quantizer of 4 bits.
    Dynamic fixed = dynamic({.candidates = {4}, .target = 4, .quantizer = "ste"});
    for (const nn::NamedTap& t : fixed.model->taps()) {
      if (t.tap->role != nn::Tap::Role::input) continue;
      for (const nn::NamedModule& m : fixed.model->modules())
        if (m.name == "dynamic." + t.owner() + ".b4") {
          auto* quantizer = dynamic_cast<Quantizer*>(m.module);
          const auto site = std::find_if(fixed.sites->sites().begin(), fixed.sites->sites().end(),
                                         [&](const Sites::Site& s) { return s.name == t.name; });
          const auto stored = site == fixed.sites->sites().end() ? nullptr : site->quantizer;
          t.tap->hook = [quantizer, stored](const Tensor& x) {
            return (*quantizer)(stored ? (*stored)(x).value : x);
          };
        }
    }
    const Array images = random_normal({6, 12, 12, 3}, Philox(33));
    {
      const NoGrad no_grad;
      CHECK(same_bytes(d.bits->forward(images).value(), (*fixed.model)(images).value()));
    }
    const integer::Model with = lowered(d);
    const integer::Model without = lower(trace([&](const Tensors& in) { return (*fixed.model)(in[0]); },
                                               {Array::zeros(fixed.model->input_shape())}));
    CHECK(same_bytes(integer::Session(with, 6).run(images), integer::Session(without, 6).run(images)));
    // The network that protocol_policy() makes costs the same and differs in one thing only: where one layer
    // reads a tensor it is stored in 4 bits at once, while for candidates all tensors are stored in 8 bits
    // and mapped. So values are near and not the same; above stands the network they are the same as.
    const auto plain = network();
    attach_sites(*plain, protocol_policy(*plain, Protocol::family, 4, 4, "ste", Skip::u8));
    (*plain)(gaudy(random_set(32).images));
    plain->eval();
    const integer::Model protocol = lower(
        trace([&](const Tensors& in) { return (*plain)(in[0]); }, {Array::zeros(plain->input_shape())}));
    CHECK(integer::bops(with) == integer::bops(protocol));
    CHECK(integer::parameter_bytes(with) == integer::parameter_bytes(protocol));
    CHECK(distance(integer::Session(with, 6).run(images), integer::Session(protocol, 6).run(images)) < 0.3);
    CHECK_FALSE(integer::selects(with));  // there is nothing to choose
    CHECK(integer::bops(with) == integer::bops(without));
    CHECK(d.bits->cost_of(std::vector<int>(d.bits->sites().size(), 0)) == doctest::Approx(1));
  }
}

TEST_CASE("batch norms of the candidates start as the layer's own; each learns from its images alone") {
  DynamicOptions options;
  Dynamic shared = dynamic(options);
  options.norms = true;
  Dynamic own = dynamic(options);
  const Array images = gaudy(random_set(6).images);
  const auto sites = static_cast<int64_t>(own.bits->sites().size());
  for (Dynamic* d : {&shared, &own}) {
    d->bits->choosing = Choosing::given;
    d->bits->choices = Array::full({6, sites}, 2, DType::u8);
    std::fill_n(d->bits->choices.data<uint8_t>(), 3 * sites, uint8_t{0});
  }
  CHECK(same_bytes(own.bits->forward(images).value(), shared.bits->forward(images).value()));

  std::vector<std::string> names;
  Tensors norms;
  for (const nn::NamedTensor& p : own.model->parameters()) {
    if (p.name.find(".norm") == std::string::npos) continue;
    names.push_back(p.name);
    norms.push_back(p.tensor);
  }
  REQUIRE(norms.size() == 2 * 3 * own.bits->sites().size());
  const Tensors slopes = grad(Tensors{sum(square(own.bits->forward(images)))}, norms);
  for (size_t i = 0; i < norms.size(); ++i) {
    CAPTURE(names[i]);
    const bool learns = kernels::reduce(kernels::Reduction::max, slopes[i].value()).data<float>()[0] != 0;
    CHECK(learns == (names[i].find(".norm4.") == std::string::npos));
  }

  const auto folded = nn::make_model("resnet8", {.image_size = 12, .classes = 10, .style = {.folded = true}});
  nn::initialise(*folded, 3);
  const Policy policy = protocol_policy(*folded, Protocol::folded, 4, 4, "ste", Skip::u8);
  const auto attached = attach_sites(*folded, dynamic_policy(*folded, policy, options));
  CHECK_THROWS_WITH_AS(attach_dynamic_bits(*folded, *attached, options),
                       doctest::Contains("do not fold them"), argument_error);
}

TEST_CASE("T18: BOPs of ResNet-20 with all layers alike are those of the table") {
  // 40,551,040 MACs: spec 4.1.
  const auto model = nn::make_model("resnet20");
  nn::initialise(*model, 1);
  for (const auto& [bits, expected] : {std::pair{5, 1013776000}, {4, 648816640}, {3, 364959360}}) {
    attach_sites(*model, uniform_policy(*model, {bits, bits, "ste"}, Skip::u8, Ends::same));
    calibrate(*model, random_normal(model->input_shape(2), Philox(1)));
    model->eval();
    CHECK(total_bops(count_cost(trace([&](const Tensors& in) { return (*model)(in[0]); },
                                      {Array::zeros(model->input_shape())}))) == expected);
  }
}

TEST_CASE("cost of the selector's choices: in the loss, in the runtime, at the ends of its range") {
  for (const bool weights : {false, true}) {
    CAPTURE(weights);
    DynamicOptions options;
    options.weights = weights;
    Dynamic d = dynamic(options);
    const ImageSet set = random_set(7);
    const integer::Model model = lowered(d);
    const NoGrad no_grad;
    d.bits->choosing = Choosing::given;
    Array choices({7, static_cast<int64_t>(d.bits->sites().size())}, DType::u8);
    for (int64_t i = 0; i < choices.size(); ++i)
      choices.data<uint8_t>()[i] = static_cast<uint8_t>(Philox(3).below(static_cast<uint64_t>(i), 3));
    d.bits->choices = choices;
    d.bits->forward(set.images);
    CHECK(same_bytes(d.bits->last_choices(), choices));
    const Array cost = d.bits->cost().value();
    std::vector<int> target(d.bits->sites().size(), 1);
    for (int64_t i = 0; i < 7; ++i) {
      const uint8_t* row = choices.data<uint8_t>() + i * choices.dim(1);
      const double relative = static_cast<double>(integer::bops(model, {row, row + choices.dim(1)})) /
                              static_cast<double>(integer::bops(model, target));
      CHECK(cost.data<float>()[i] == doctest::Approx(relative).epsilon(1e-5));
      CHECK(d.bits->cost_of({row, row + choices.dim(1)}) == doctest::Approx(relative).epsilon(1e-9));
    }
    CHECK(d.bits->least_cost() < 1);
    CHECK(d.bits->most_cost() > 1);
    CHECK_THROWS_WITH_AS((*d.model)(set.images), doctest::Contains("without its selector"), argument_error);
    DynamicOptions by_layer;
    by_layer.type = SelectorType::layer;
    by_layer.norms = weights;
    Dynamic other = dynamic(by_layer);
    CHECK_THROWS_WITH_AS((*other.model)(set.images), doctest::Contains("without its selector"),
                         argument_error);
  }
}

TEST_CASE("the budget moves the bits; a target out of reach and a collapsed selector are told") {
  const ImageSet set = random_set(64);
  const auto train = [&](double target, BudgetLaw law, Choosing choosing, bool weights = false) {
    DynamicOptions options;
    options.weights = weights;
    Dynamic d = dynamic(options);
    const auto teacher = network();
    FineTuningOptions o{.calibration = 5, .epochs = 6, .steps = 10, .batch = 32, .lr = 0, .kd = 0.01};
    o.augment = false;
    o.target = target;
    o.law = law;
    o.budget = 20;
    o.selector_lr = 0.05;
    o.choosing = choosing;
    EpochNote last;
    fine_tune(*d.model, *d.sites, d.bits.get(), *teacher, set, o,
              {.after_epoch = [&](const EpochNote& n) { last = n; }});
    CHECK(last.selector_gradient > 0);
    CHECK(std::isfinite(last.loss));
    return last.cost;
  };
  CHECK(train(0.85, BudgetLaw::hinge, Choosing::straight_through) < 0.92);
  CHECK(train(0.85, BudgetLaw::hinge, Choosing::gumbel) < 0.92);
  CHECK(train(0.85, BudgetLaw::hinge, Choosing::gumbel, /*weights=*/true) < 0.92);
  CHECK(train(1.15, BudgetLaw::distance, Choosing::straight_through) > 1.04);
  CHECK_THROWS_WITH_AS(train(0.1, BudgetLaw::hinge, Choosing::gumbel), doctest::Contains("out of reach"),
                       argument_error);

  const auto alike = collapse(Array::full({50, 4}, 1, DType::u8), 3);
  REQUIRE(alike.has_value());
  CHECK(alike->starts_with("collapsed selector"));
  Array mixed = Array::zeros({50, 4}, DType::u8);
  for (int64_t i = 0; i < 25; ++i) mixed.data<uint8_t>()[i * 4 + 2] = 2;
  CHECK_FALSE(collapse(mixed, 3).has_value());
  CHECK(choice_entropy(mixed, 3)[2] == doctest::Approx(std::log(2)));
  CHECK(choice_entropy(mixed, 3)[0] == 0);
}

TEST_CASE(
    "what is deployed is measured: the cost of the most probable choices, and a target that is missed") {
  const ImageSet set = random_set(40);
  Dynamic d = dynamic({});
  d.bits->choosing = Choosing::random;
  const Array choices = deployed_choices(*d.bits, set);
  CHECK(d.bits->choosing == Choosing::random);
  CHECK(choices.shape() == Shape({40, static_cast<int64_t>(d.bits->sites().size())}));
  const NoGrad no_grad;
  d.bits->choosing = Choosing::hard;
  d.bits->forward(set.images);
  CHECK(same_bytes(choices, d.bits->last_choices()));
  CHECK(mean_cost(*d.bits, choices) == doctest::Approx(mean(d.bits->cost()).item()).epsilon(1e-5));

  CHECK_FALSE(missed_target(1.019, 1).has_value());
  CHECK_FALSE(missed_target(0.981, 1).has_value());
  CHECK(missed_target(1.03, 1).value().starts_with(
      "target missed: the selector's choices for images cost 1.03"));
  CHECK(missed_target(0.5, 0.85).value().find("pulls up") != std::string::npos);

  // The note of an epoch has what is deployed, not what the noise of the training gave.
  FineTuningOptions o{.calibration = 2, .epochs = 1, .steps = 4, .batch = 16, .lr = 0};
  o.warm_up = 0.9;  // random bits, whose mean cost is another
  const auto teacher = network();
  EpochNote last;
  fine_tune(*d.model, *d.sites, d.bits.get(), *teacher, set, o,
            {.after_epoch = [&](const EpochNote& n) { last = n; }});
  CHECK(last.deployed_cost == doctest::Approx(mean_cost(*d.bits, deployed_choices(*d.bits, set))));
  CHECK(last.deployed_cost != doctest::Approx(last.cost).epsilon(1e-3));
}

TEST_CASE("at first all images take the target's bits, wherever it stands, or the highest") {
  for (const auto& [target, highest, expected] :
       {std::tuple{3, false, 0}, {4, false, 1}, {6, false, 3}, {3, true, 3}}) {
    CAPTURE(target);
    DynamicOptions options{.candidates = {3, 4, 5, 6}, .target = target};
    options.selector.start_highest = highest;
    const auto model = network();
    const Policy fixed = protocol_policy(*model, Protocol::family, 4, target, "ste", Skip::u8);
    const auto sites = attach_sites(*model, dynamic_policy(*model, fixed, options));
    const auto bits = attach_dynamic_bits(*model, *sites, options);
    const Array choices = deployed_choices(*bits, random_set(8));
    for (int64_t i = 0; i < choices.size(); ++i) CHECK(int{choices.data<uint8_t>()[i]} == expected);
  }
}

TEST_CASE("random bits warm all candidates up before the selector learns; the guard keeps its bits apart") {
  const ImageSet set = random_set(64);
  const auto train = [&](double warm_up, double guard) {
    DynamicOptions options;
    const auto model = network(), teacher = network();
    const Policy fixed = protocol_policy(*model, Protocol::family, 4, 4, "ste", Skip::u8);
    const auto sites = attach_sites(*model, dynamic_policy(*model, fixed, options));
    const auto bits = attach_dynamic_bits(*model, *sites, options);
    FineTuningOptions o{
        .calibration = 2, .epochs = 4, .steps = 5, .batch = 32, .lr = 0, .kd = 1e-12, .ce = 0};
    o.augment = false;
    o.budget = 0;
    o.warm_up = warm_up;
    o.entropy = guard;
    o.selector_lr = 0.02;
    o.choosing = Choosing::straight_through;
    std::vector<EpochNote> notes;
    fine_tune(*model, *sites, bits.get(), *teacher, set, o,
              {.after_epoch = [&](const EpochNote& n) { notes.push_back(n); }});
    bits->forward(set.images);
    const Tensor p = mean(bits->probabilities(), {0});
    const double entropy = sum(p * log(p)).item() / -static_cast<double>(p.dim(0));
    return std::pair{notes, entropy};
  };
  const auto [cold, alone] = train(0, 0);
  const auto [warm, same] = train(0.5, 0);
  CHECK(cold[0].bit_entropy < 0.2);  // all at the target
  CHECK(warm[0].bit_entropy > 1.0);  // ln 3 = 1.099
  CHECK(warm[1].bit_entropy > 1.0);
  CHECK(warm[1].selector_gradient == 0);
  CHECK(warm[2].selector_gradient > 0);
  CHECK(warm[2].bit_entropy < 0.2);
  const double guarded = train(0, 1).second;
  CHECK(guarded > alone + 0.05);
  CHECK(guarded > 1.05);
}

TEST_CASE("a forward that throws leaves no trace: the model alone is refused afterwards as before") {
  Dynamic d = dynamic({});
  const Array images = random_set(2).images;
  d.bits->choosing = Choosing::given;
  d.bits->choices = Array::full({2, static_cast<int64_t>(d.bits->sites().size())}, 9, DType::u8);
  CHECK_THROWS_AS(d.bits->forward(images), argument_error);
  CHECK_THROWS_WITH_AS((*d.model)(images), doctest::Contains("without its selector"), argument_error);
  d.bits->choosing = Choosing::hard;
  CHECK_NOTHROW(d.bits->forward(images));
}

TEST_CASE("dynamic networks: wrong candidates, skips and choices") {
  const auto model = network();
  const Policy fixed = protocol_policy(*model, Protocol::family, 4, 4, "ste", Skip::u8);
  CHECK_THROWS_AS(dynamic_policy(*model, fixed, {.candidates = {4, 3}}), argument_error);
  CHECK_THROWS_AS(dynamic_policy(*model, fixed, {.candidates = {3, 5}, .target = 4}), argument_error);
  CHECK_THROWS_AS(dynamic_policy(*model, fixed, {.after = 99}), argument_error);
  DynamicOptions both;
  both.weights = true;
  CHECK_THROWS_WITH_AS(
      dynamic_policy(*model, protocol_policy(*model, Protocol::family, 3, 4, "ste", Skip::u8), both),
      doctest::Contains("has weights of 3 bits, expected the target's 4"), argument_error);
  const Policy shared = protocol_policy(*model, Protocol::family, 4, 4, "ste", Skip::shared);
  CHECK_THROWS_WITH_AS(dynamic_policy(*model, shared, {}), doctest::Contains("expected u8"), argument_error);
  Dynamic d = dynamic({});
  d.bits->choosing = Choosing::given;
  d.bits->choices = Array::full({2, static_cast<int64_t>(d.bits->sites().size())}, 3, DType::u8);
  CHECK_THROWS_AS(d.bits->forward(random_set(2).images), argument_error);
  // Learned ranges, one for each number of bits, train and deploy as well.
  DynamicOptions learned;
  learned.quantizer = "lsq";
  Dynamic own = dynamic(learned);
  const integer::Model lowered_own = lowered(own);
  const Array images = random_normal({3, 12, 12, 3}, Philox(33));
  CHECK(same_bytes(integer::Session(lowered_own, 3).run(images),
                   integer::evaluate(lowered_own, images)[static_cast<size_t>(lowered_own.output)]));
}

TEST_CASE("moments and selections that do not fit are refused") {
  Dynamic d = dynamic({});
  const integer::Model good = lowered(d);
  const auto broken = [&](auto change) {
    integer::Model model = good;
    for (integer::Layer& layer : model.layers)
      if (auto* s = std::get_if<integer::Select>(&layer)) change(model, *s);
    return model;
  };
  CHECK_THROWS_AS(integer::validate(broken([](integer::Model&, integer::Select& s) { s.first = 1; })),
                  argument_error);
  CHECK_THROWS_AS(integer::validate(broken([](integer::Model& m, integer::Select& s) {
                    m.values[static_cast<size_t>(s.dst)].grid.hi = 1;
                  })),
                  argument_error);
  integer::Model late = good;
  for (size_t i = 0; i + 1 < late.layers.size(); ++i)
    if (std::holds_alternative<integer::Select>(late.layers[i]))
      std::swap(late.layers[i], late.layers[i + 1]);
  CHECK_THROWS_WITH_AS(integer::validate(late), doctest::Contains("no layer before it has made"),
                       argument_error);
}

TEST_CASE("choices are shifted to where they cost what was asked for, up or down, whatever the selector") {
  for (const SelectorType type : {SelectorType::image, SelectorType::layer, SelectorType::offset}) {
    CAPTURE(to_string(type));
    Dynamic d = dynamic({.type = type});
    const ImageSet set = random_set(60);
    // Logits that differ from image to image and from site to site.
    for (const nn::NamedTensor& p : d.bits->selector_parameters())
      if (p.tensor.rank() == 2) Array(p.tensor.value()).assign(random_normal(p.tensor.shape(), Philox(8)));
    for (const double target : {0.9, 1.1}) {
      CAPTURE(target);
      meet_target(*d.bits, set, target);
      CHECK(mean_cost(*d.bits, deployed_choices(*d.bits, set)) == doctest::Approx(target).epsilon(0.01));
      CHECK(meet_target(*d.bits, set, mean_cost(*d.bits, deployed_choices(*d.bits, set))) == 0);
    }
  }
  // Out of reach: as near as it goes.
  Dynamic d = dynamic({});
  meet_target(*d.bits, random_set(20), 0.01);
  CHECK(mean_cost(*d.bits, deployed_choices(*d.bits, random_set(20))) ==
        doctest::Approx(d.bits->least_cost()).epsilon(1e-6));
}
