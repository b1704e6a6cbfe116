// Search spaces, budgets, policies that come out, their peers, and the edge cases of the literature (P10 to
// P20; P10 to P12 are in tests/nn/attribution_loss_test.cpp).
#include <doctest/doctest.h>

#include <cmath>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../nn/optimiser.h"
#include "../../quant/search/budget.h"
#include "../../quant/search/hessian.h"
#include "../../quant/search/peers.h"
#include "../../quant/search/risk.h"
#include "../../quant/sites.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace {

std::unique_ptr<nn::Model> network(const std::string& name, double width = 1) {
  nn::ModelOptions options = nn::usual_options(name);
  options.width = width;
  auto model = nn::make_model(name, options);
  nn::initialise(*model, 1);
  return model;
}
std::unique_ptr<nn::Model> small() {
  auto model = nn::make_model("resnet8", {.image_size = 8, .classes = 4, .width = 0.25});
  nn::initialise(*model, 1);
  return model;
}
const std::vector<int> some_bits = {2, 3, 4, 6};

}  // namespace

TEST_CASE("accounting is exact: the multiply-accumulates of four networks, and both ways to write BOPs") {
  const auto macs = [](const std::string& name) {
    const auto model = network(name);
    return account(*model, uniform_policy(*model, {2, 2})).macs;
  };
  CHECK(macs("resnet18") == 1814073344);
  CHECK(macs("resnet50") == 4089184256);
  CHECK(macs("mobilenet_v2") == 300774272);
  CHECK(macs("resnet20") == 40551040);
  CHECK(in_giga(1814073344. * 1024) == "1858 G");
  CHECK(in_giga(1814073344. * 1024, /*binary=*/true) == "1730 Gi");
}

TEST_CASE("accounting by each convention: 7.26G and 6.78G are the same 2-bit ResNet-18") {
  const auto model = network("resnet18");
  const Accounting a = account(*model, uniform_policy(*model, {2, 2}, Skip::u8, Ends::same));
  const int64_t ends = 112ll * 112 * 64 * 147 + 512 * 1000;
  CHECK(a.quantized == (1814073344 - ends) * 4);
  CHECK(in_giga(static_cast<double>(a.quantized)) == "6.782 G");
  CHECK(a.all_alike == 1814073344ll * 4);
  CHECK(in_giga(static_cast<double>(a.all_alike)) == "7.256 G");
  CHECK(a.with_8bit_ends == a.quantized + ends * 64);
  CHECK(a.with_float_ends == a.quantized + ends * 1024);
  CHECK(a.bops == a.all_alike);
  CHECK(account(*model, uniform_policy(*model, {2, 2})).bops == a.with_8bit_ends);
  CHECK(account(*model, uniform_policy(*model, {2, 2}, Skip::u8, Ends::floating)).bops == a.with_float_ends);
  // Other bits of the first and last layer change bytes, not these.
  CHECK(account(*model, uniform_policy(*model, {2, 2})).quantized == a.quantized);
  CHECK(account(*model, uniform_policy(*model, {2, 2})).weight_bits > a.weight_bits);
}

TEST_CASE(
    "P16: groups and strides count: depthwise convolutions read one channel, strides halve rows and "
    "columns") {
  const auto model = network("mobilenet_v2");
  const SearchSpace space(*model, some_bits, some_bits);
  const auto macs = [&](const std::string& name) {
    for (const SearchLayer& layer : space.layers())
      if (layer.name == name) return layer.macs;
    return int64_t{0};
  };
  CHECK(macs("features.2.conv.0.0") == 112ll * 112 * 16 * 96);
  CHECK(macs("features.2.conv.1.0") == 56ll * 56 * 96 * 9);  // depthwise, stride 2
  CHECK(macs("features.2.conv.2") == 56ll * 56 * 96 * 24);
  CHECK(space.layers().front().name == "features.1.conv.0.0");
  CHECK(space.layers().back().name == "features.18.0");
}

TEST_CASE("BOPs are read with a suffix") {
  CHECK(parse_bops("365M") == 365000000);
  CHECK(parse_bops("7.4G") == 7400000000);
  CHECK(parse_bops("1.2T") == 1200000000000);
  CHECK(parse_bops("12") == 12);
  CHECK(parse_bops("361000000") == 361000000);
  for (const char* word : {"", "G", "7.4g", "7,4G", "-1G", "0", "nan", "inf", "7.4GG", "1e9G", "7.4 G"})
    CHECK_THROWS_WITH_AS(parse_bops(word), doctest::Contains("365M"), argument_error);
}

TEST_CASE("a space refuses candidates and budgets that make no sense") {
  const auto model = small();
  CHECK_THROWS_AS(SearchSpace(*model, {}, {4}), argument_error);
  CHECK_THROWS_AS(SearchSpace(*model, {0, 4}, {4}), argument_error);
  CHECK_THROWS_AS(SearchSpace(*model, {4}, {4, 9}), argument_error);
  CHECK_THROWS_WITH_AS(SearchSpace(*model, {4, 2}, {4}), doctest::Contains("ascend"), argument_error);
  CHECK_THROWS_AS(SearchSpace(*model, {4, 4}, {4}), argument_error);
  const SearchSpace space(*model, {2, 4}, {3, 8});
  CHECK(space.layers().size() == 6);
  CHECK(SearchSpace(*model, {2}, {2}, /*ends=*/true).layers().size() == 8);
  CHECK_NOTHROW(space.check_budget(space.bops({2, 3}), 0.03));
  CHECK_NOTHROW(space.check_budget(space.bops({4, 8}), 0.03));
  CHECK_THROWS_WITH_AS(space.check_budget(space.bops({2, 3}) - 1, 0.03),
                       doctest::Contains("expected one from"), argument_error);
  CHECK_THROWS_AS(space.check_budget(space.bops({4, 8}) * 11 / 10, 0.03), argument_error);
  CHECK_THROWS_AS(MixedQuantizer("lsq", {4, 3}, {}), argument_error);
  CHECK_THROWS_AS(MixedQuantizer("lqs", {3, 4}, {}), argument_error);
}

TEST_CASE("the best choice within limits is the best of all choices") {
  const auto model = small();
  const SearchSpace space(*model, {2, 4}, {3, 8});  // 4^6 choices
  const Array merits = random_normal({6, 4}, Philox(3), 1, DType::f64);
  const auto merit = [&](size_t layer, LayerBits bits) {
    return merits.data<double>()[layer * 4 + (bits.w == 4) * 2 + (bits.a == 8)];
  };
  const auto total = [&](const BitChoice& choice) {
    double sum = 0;
    for (size_t i = 0; i < choice.size(); ++i) sum += merit(i, choice[i]);
    return sum;
  };
  const int64_t least = space.bops({2, 3}), most = space.bops({4, 8});
  for (const double share : {0.1, 0.3, 0.5, 0.9}) {
    const auto high = least + static_cast<int64_t>(share * static_cast<double>(most - least));
    const auto low = static_cast<int64_t>(0.97 * static_cast<double>(high));
    double best = -HUGE_VAL;
    for (int code = 0; code < 4096; ++code) {
      BitChoice choice;
      for (int i = 0; i < 6; ++i)
        choice.push_back({code >> (2 * i) & 1 ? 4 : 2, code >> (2 * i + 1) & 1 ? 8 : 3});
      const int64_t bops = space.bops(choice);
      if (bops >= low && bops <= high) best = std::max(best, total(choice));
    }
    const auto found = space.best(merit, low, high);
    REQUIRE(found.has_value() == (best > -HUGE_VAL));
    if (!found) continue;
    CHECK(space.bops(*found) >= low);
    CHECK(space.bops(*found) <= high);
    CHECK(total(*found) == doctest::Approx(best));
  }
  CHECK_FALSE(space.best(merit, least - 2, least - 1));
}

TEST_CASE("what is best anyway is found where BOPs of layers have no large common divisor, too") {
  const auto model = nn::make_model("mobilenet_v2_cifar", {.width = 0.25});
  const SearchSpace space(*model, some_bits, some_bits);
  const auto merit = [](size_t layer, LayerBits bits) {
    return Philox(35, layer).uniform(static_cast<uint64_t>(10 * bits.w + bits.a));
  };
  BitChoice best(space.layers().size());
  for (size_t i = 0; i < best.size(); ++i)
    for (const int w : some_bits)
      for (const int a : some_bits)
        if (merit(i, {w, a}) > merit(i, best[i]) || best[i] == LayerBits{}) best[i] = {w, a};
  const int64_t own = space.bops(best);
  CHECK(space.best(merit, own * 97 / 100, own * 103 / 100) == best);
  const auto cheaper = space.best(merit, own * 87 / 100, own * 90 / 100);
  REQUIRE(cheaper);
  CHECK(space.bops(*cheaper) >= own * 87 / 100);
  CHECK(space.bops(*cheaper) <= own * 90 / 100);
}

TEST_CASE("logits that are far apart keep their order, though their shares are 0 in floats") {
  const auto model = small();
  const SearchSpace space(*model, some_bits, some_bits);
  const auto supernet = attach_supernet(*model, space);
  Array logits = supernet->layers()[1].weight->logits.value();
  logits.assign(Array::of<float>({0, 300, 100, 200}));  // of 2, 3, 4 and 6 bits
  supernet->soften({.temperature = 0.1});
  const auto merit = [&](int w) { return supernet->merit(1, {w, 4}); };
  CHECK(supernet->layers()[1].weight->shares().value().to_vector()[2] == 0);
  CHECK(merit(3) - merit(6) == doctest::Approx(1000));
  CHECK(merit(6) - merit(4) == doctest::Approx(1000));
  CHECK(merit(4) - merit(2) == doctest::Approx(1000));
  const std::vector<double> all = supernet->layers()[1].weight->log_shares();
  CHECK(all[1] == doctest::Approx(0));
  CHECK(all[0] == doctest::Approx(-3000));
}

TEST_CASE("P13: equal logits give the bits nearest to the expected ones, not the fewest, and are counted") {
  const auto model = small();
  const SearchSpace space(*model, some_bits, some_bits);
  const auto supernet = attach_supernet(*model, space);
  int ties = 0;
  for (const LayerBits& bits : supernet->chosen(&ties)) CHECK(bits == LayerBits{4, 4});  // 3.75 is expected
  CHECK(ties == 12);
  Array logits = supernet->layers()[0].input->logits.value();
  logits.assign(Array::of<float>({0.01f, 0.01f, 0.01f, 0.02f}));
  CHECK(supernet->chosen(&ties)[0] == LayerBits{4, 6});
  CHECK(ties == 11);
  logits.assign(Array::full({4}, NAN));
  CHECK_THROWS_AS(supernet->chosen(), argument_error);
}

TEST_CASE("P14: after argmax the budget is exact, and what is within it already is not touched") {
  const auto model = small();
  const SearchSpace space(*model, some_bits, some_bits);
  const auto supernet = attach_supernet(*model, space);
  for (size_t i = 0; i < supernet->layers().size(); ++i)
    for (const auto& site : {supernet->layers()[i].weight, supernet->layers()[i].input}) {
      Array logits = site->logits.value();
      logits.assign(random_normal({4}, Philox(9, stream_of(site->name())), 0.05));
    }
  const auto merit = [&](size_t layer, LayerBits bits) { return supernet->merit(layer, bits); };
  const BitChoice chosen = supernet->chosen();
  const int64_t own = space.bops(chosen);
  CHECK(space.best(merit, own * 97 / 100, own) == chosen);
  CHECK(space.best(merit, own, own) == chosen);
  for (const int64_t budget : {own * 8 / 10, own * 12 / 10}) {
    const auto repaired = space.best(merit, budget * 97 / 100, budget);
    REQUIRE(repaired);
    CHECK(space.bops(*repaired) <= budget);
    CHECK(space.bops(*repaired) >= budget * 97 / 100);
  }
}

TEST_CASE("a budget of expected BOPs is met from above and from below, and survives a checkpoint") {
  const auto model = small();
  const SearchSpace space(*model, some_bits, some_bits);
  for (const LayerBits target : {LayerBits{2, 3}, LayerBits{3, 3}, LayerBits{4, 6}}) {
    const auto supernet = attach_supernet(*model, space);
    const int64_t bops = space.bops(target);
    Budget budget(bops);
    std::vector<nn::NamedTensor> logits;
    for (const nn::NamedTensor& p : supernet->parameters())
      if (p.name.ends_with("logits")) logits.push_back(p);
    nn::SGD optimiser({{logits, 1, 0}}, 0.9);
    double expected = 0;
    for (int step = 0; step < 600; ++step) {
      const Tensor cost = supernet->expected_bops();
      expected = cost.item();
      optimiser.step(grad({budget.penalty(cost)}, optimiser.parameters()), 0.2);
      budget.update(expected);
    }
    CHECK(expected == doctest::Approx(static_cast<double>(bops)).epsilon(0.03));
    Budget other(bops);
    other.state().at("multiplier").assign(budget.state().at("multiplier"));
    CHECK(other.multiplier() == budget.multiplier());
  }
  CHECK_THROWS_AS(Budget(0), argument_error);
}

TEST_CASE("a supernet is one convolution a layer, and leaves the float model as it was") {
  const auto model = small();
  const Array images = random_normal(model->input_shape(2), Philox(2));
  const NoGrad no_grad;
  model->eval();
  const std::vector<double> before = (*model)(images).value().to_vector();
  const auto parameters = model->parameter_count();
  const SearchSpace space(*model, some_bits, some_bits);
  attach_supernet(*model, space);
  CHECK((*model)(images).value().to_vector() != before);
  CHECK(model->parameter_count() == parameters + 12 * (4 + 4));  // logits and steps
  int convolutions = 0;
  const Trace run = trace([&](const Tensors& in) { return (*model)(in[0]); }, {images});
  for (const auto& node : run.nodes) convolutions += node->op->name() == "conv2d";
  CHECK(convolutions == 7);
  detach_supernet(*model);
  CHECK(model->parameter_count() == parameters);
  CHECK((*model)(images).value().to_vector() == before);
}

TEST_CASE("P15: weights decay; logits, ranges and batch norms do not") {
  const auto model = small();
  const SearchSpace space(*model, some_bits, some_bits);
  attach_supernet(*model, space);
  const auto groups = supernet_groups(*model, 1e-4, 10);
  REQUIRE(groups.size() == 3);
  std::map<std::string, const nn::ParameterGroup*> group_of;
  for (const nn::ParameterGroup& group : groups)
    for (const nn::NamedTensor& p : group.parameters) group_of[p.name] = &group;
  CHECK(group_of.size() == model->parameters().size());
  CHECK(group_of.at("layer1.0.conv1.weight")->weight_decay == 1e-4);
  CHECK(group_of.at("linear.weight")->weight_decay == 1e-4);
  int logits = 0;
  for (const auto& [name, group] : group_of) {
    CAPTURE(name);
    const bool own = name.starts_with("search."), logit = own && name.ends_with(".logits");
    logits += logit;
    CHECK(group->lr_scale == (logit ? 10 : 1));
    if (own || name.find(".bn") != std::string::npos) CHECK(group->weight_decay == 0);
  }
  CHECK(logits == 12);
  // A step without gradients moves what decays alone.
  nn::SGD optimiser(groups, 0);
  Tensors none;
  for (const Tensor& p : optimiser.parameters()) none.push_back(Array::zeros(p.shape()));
  const nn::State before = nn::clone(model->state());
  optimiser.step(none, 1);
  const nn::State after = model->state();
  const auto moved = [&](const std::string& name) {
    return after.at(name).to_vector() != before.at(name).to_vector();
  };
  CHECK(moved("layer1.0.conv1.weight"));
  CHECK_FALSE(moved("search.layer1.0.conv1.weight.logits"));
}

TEST_CASE("P17: ranges are not frozen: they follow what is learned, and what the data become") {
  const Array w = random_normal({4, 3, 3, 4}, Philox(4), 0.1),
              wide = random_normal({4, 3, 3, 4}, Philox(4), 1);
  MixedQuantizer learned("lsq", {2, 4}, {.weight = true});
  for (const nn::NamedTensor& p : learned.parameters())
    if (p.name != "logits") CHECK(p.name.ends_with("scale"));
  learned.reset(0, "");
  Tensors points;
  learned(w);
  for (const auto& candidate : learned.candidates()) points.push_back(candidate->own_parameters()[0]);
  for (const Tensor& slope : grad({sum(square(learned(w) - Tensor(wide)))}, points))
    CHECK(std::abs(slope.item()) > 0);
  MixedQuantizer following("ste", {2, 4}, {.weight = true});
  following.reset(0, "");
  following(w);
  const std::vector<double> y = following(wide).value().to_vector();
  CHECK(*std::max_element(y.begin(), y.end()) > 1);
}

TEST_CASE("P18: a range that the optimiser drives below zero comes back") {
  const Array x = random_uniform({2, 4, 4, 3}, Philox(5));
  MixedQuantizer site("pact", {2, 4}, {});
  site.reset(0, "");
  site(x);
  Array alpha = site.candidates()[0]->own_parameters()[0].value();
  alpha.assign(Array::full(alpha.shape(), -1));
  site.project();
  CHECK(alpha.item() > 0);
  for (const double v : site(x).value().to_vector()) CHECK(std::isfinite(v));
}

TEST_CASE("P16: candidates of one bit divide by nothing") {
  for (const char* name : {"lsq", "pact", "dsq", "ste", "dorefa", "binary"})
    for (const bool weight : {false, true}) {
      CAPTURE(name);
      MixedQuantizer site(name, {1, 2}, {.weight = weight});
      site.reset(0, "");
      const Tensor x = Tensor::leaf(random_normal({2, 3, 3, 4}, Philox(6)));
      const Tensor y = site(x);
      for (const double v : y.value().to_vector()) CHECK(std::isfinite(v));
      for (const double v : grad({sum(square(y))}, {x, site.logits})[1].value().to_vector())
        CHECK(std::isfinite(v));
    }
}

TEST_CASE("a low temperature decides, and Gumbel noise is new in every step but the same for the same step") {
  MixedQuantizer site("lsq", some_bits, {});
  Array logits = site.logits.value();
  logits.assign(Array::of<float>({0.1f, 0.2f, 0.3f, 0.25f}));
  CHECK(site.shares().value().to_vector()[2] < 0.3);
  site.soften({.temperature = 0.005});
  CHECK(site.shares().value().to_vector()[2] > 0.99);
  CHECK(site.expected_bits().item() == doctest::Approx(4).epsilon(0.01));
  const Array x = random_uniform({1, 4, 4, 3}, Philox(7));
  const auto at = [&](uint64_t seed, int64_t step) {
    site.soften({.temperature = 1, .gumbel = true, .seed = seed, .step = step});
    return site(x).value().to_vector();
  };
  const auto first = at(1, 0);
  CHECK(at(1, 1) != first);
  CHECK(at(2, 0) != first);
  CHECK(at(1, 0) == first);
}

TEST_CASE("exponents: fewer bits concentrate, by each rule") {
  const auto at = [](CapacityRule rule, double w, double a) {
    return capacity_exponent({.rule = rule}, {{w, a}, {w, a}});
  };
  CHECK(at(CapacityRule::linear, 8, 8) == 1);
  CHECK(at(CapacityRule::linear, 2, 2) == 4);
  CHECK(at(CapacityRule::linear, 4, 6) == doctest::Approx(2.5));
  CHECK(at(CapacityRule::linear, 1, 1) == 4);  // below 2 bits it stays
  CHECK(at(CapacityRule::convex, 5, 5) < at(CapacityRule::linear, 5, 5));
  CHECK(at(CapacityRule::concave, 5, 5) > at(CapacityRule::linear, 5, 5));
  CHECK(at(CapacityRule::constant, 2, 8) == 3);
  // The released code: 6 for 2/2, 2.67 for 3/3, 1.5 for 4/4.
  CHECK(at(CapacityRule::reciprocal, 2, 2) == doctest::Approx(6));
  CHECK(at(CapacityRule::reciprocal, 3, 3) == doctest::Approx(24.0 / 9));
  CHECK(at(CapacityRule::reciprocal, 4, 4) == doctest::Approx(1.5));
  // The mean of reciprocals, not the reciprocal of means.
  CHECK(capacity_exponent({.rule = CapacityRule::reciprocal}, {{2, 2}, {4, 4}}) == doctest::Approx(3.75));
  for (const std::string& name : capacity_rule_names()) CHECK_NOTHROW(parse_capacity_rule(name));
  CHECK_THROWS_WITH_AS(parse_capacity_rule("liner"), doctest::Contains("did you mean 'linear'?"),
                       argument_error);
  CHECK_THROWS_AS(parse_explained_class("teach"), argument_error);
}

TEST_CASE("R-GMPQ, our reading: harder images concentrate more, within limits, and the mean stays") {
  const std::vector<double> p = hardness_exponents(3, {1, 1, 4, 0.01}, 0.25);
  CHECK(p[0] == p[1]);
  CHECK(p[2] > p[0]);
  CHECK(p[3] < p[0]);
  CHECK((p[0] + p[1] + p[2] + p[3]) / 4 == doctest::Approx(3));
  CHECK(hardness_exponents(3, {2, 2}, 0.25) == std::vector<double>{3, 3});
  CHECK(hardness_exponents(3, {0, 0}, 0.25) == std::vector<double>{3, 3});
  for (const double v : hardness_exponents(3, {100, 0, 0}, 5)) CHECK(v >= 0.3 - 1e-12);
  const RiskOptions r = r_gmpq({});
  CHECK(r.levels == 3);
  CHECK(r.beta == 0.25);
}

TEST_CASE("P15: the teacher is left as it is, in whatever mode, and classes are those asked for") {
  const auto model = small(), teacher = small();
  const SearchSpace space(*model, {2, 4}, {2, 4});
  const auto supernet = attach_supernet(*model, space);
  const Array images = random_normal(model->input_shape(4), Philox(8)),
              labels = Array::of<int32_t>({0, 1, 2, 3});
  std::map<std::string, std::vector<double>> before;
  for (const auto& [name, array] : teacher->state()) before[name] = array.to_vector();
  std::vector<double> losses;
  for (const char* explained : {"own", "teacher", "label"}) {
    const Risk risk = generalisation_risk(*model, *supernet, nn::explainer_of(*teacher), images, labels,
                                          {.explained = parse_explained_class(explained)}, true);
    CHECK(risk.imitation.item() > 0);
    CHECK(std::abs(risk.agreement) <= 1);
    losses.push_back(risk.imitation.item());
  }
  CHECK(losses[1] != losses[2]);
  for (const auto& [name, array] : teacher->state()) CHECK(array.to_vector() == before[name]);
  CHECK(teacher->training());
  CHECK(model->training());
  // Two equal teachers are one.
  const nn::Explainer one = nn::explainer_of(*teacher);
  const auto risk_of = [&](const nn::Explainer& explainer) {
    return generalisation_risk(*model, *supernet, explainer, images, labels,
                               r_gmpq({.explained = ExplainedClass::label}));
  };
  CHECK(risk_of(nn::mean_of({one, one})).imitation.item() ==
        doctest::Approx(risk_of(one).imitation.item()).epsilon(1e-4));
  CHECK(risk_of(one).exponent > 1);
  CHECK_THROWS_AS(nn::mean_of({}), argument_error);
}

TEST_CASE("several teachers explain one class, the top class of the first") {
  const auto model = small(), first = small(), second = small();
  nn::initialise(*first, 2);
  nn::initialise(*second, 3);
  const SearchSpace space(*model, {2, 4}, {2, 4});
  const auto supernet = attach_supernet(*model, space);
  const Array images = random_normal(model->input_shape(16), Philox(36)),
              labels = Array::of(std::vector<int32_t>(16));
  // What two teachers make of an image when the second explains these classes, or its own if there are none.
  const auto imitation = [&](ExplainedClass explained, bool of_the_first) {
    const nn::Evaluation one(*first), other(*second);
    const nn::Attribution a = nn::attribute(*first, images, first->head());
    const nn::Attribution b =
        nn::attribute(*second, images, second->head(), of_the_first ? a.classes : std::vector<int32_t>());
    CHECK((b.classes == a.classes) == of_the_first);
    const Array target =
        (Tensor(nn::scaled_to_one(a.map.value())) + Tensor(nn::scaled_to_one(b.map.value()))).value();
    const auto classes = explained == ExplainedClass::own ? std::vector<int32_t>() : a.classes;
    const Tensor map = nn::attribute(*model, images, model->head(), classes).map;
    return nn::imitate(map, target, {.exponents = {3}}).loss.item();
  };
  for (const ExplainedClass explained : {ExplainedClass::own, ExplainedClass::teacher}) {
    const Risk risk = generalisation_risk(
        *model, *supernet, nn::mean_of({nn::explainer_of(*first), nn::explainer_of(*second)}), images, labels,
        {.explained = explained, .capacity = {.rule = CapacityRule::constant, .constant = 3}});
    CHECK(risk.imitation.item() == doctest::Approx(imitation(explained, true)).epsilon(1e-4));
    CHECK(risk.imitation.item() != doctest::Approx(imitation(explained, false)).epsilon(1e-3));
  }
}

TEST_CASE("R-GMPQ, our reading: cells of the teacher on both sides, an exponent for each image by its loss") {
  const auto make = [](uint64_t seed) {
    auto made = nn::make_model("resnet8", {.image_size = 32, .classes = 4, .width = 0.25});  // maps of 8 x 8
    nn::initialise(*made, seed);
    return made;
  };
  const auto model = make(1), teacher = make(2);
  const SearchSpace space(*model, {2, 4}, {2, 4});
  const auto supernet = attach_supernet(*model, space);
  const Array images = random_normal(model->input_shape(8), Philox(37)),
              labels = Array::of<int32_t>({0, 1, 2, 3, 3, 2, 1, 0});
  RiskOptions options = r_gmpq({});
  options.levels = 2;  // cells of 2 x 2 pixels or more: means are not the pixels
  options.tolerance = 0.3;
  const nn::Explainer explainer = nn::explainer_of(*teacher);
  const Risk risk = generalisation_risk(*model, *supernet, explainer, images, labels, options);

  const nn::Attribution own = nn::attribute(*model, images, model->head());
  const Array seen = explainer(images, "", {}).map.value();
  std::vector<double> losses;
  for (int64_t i = 0; i < 8; ++i)
    losses.push_back(cross_entropy(Tensor(own.logits.value().slice(i, 1)), labels.slice(i, 1)).item());
  const double p = capacity_exponent(options.capacity, supernet->expected_bits());
  const auto imitation = [&](const Tensor& map, const Array& target, const std::vector<double>& exponents) {
    return nn::imitate(map, target, {.exponents = exponents}).loss.item();
  };
  const Array cells = nn::quad_tree(seen, 0.3, 2);
  const Tensor map = nn::cell_means(own.map, cells);
  const Array target = nn::cell_means(seen, cells).value();
  const std::vector<double> exponents = hardness_exponents(p, losses, 0.25);
  CHECK(risk.imitation.item() == doctest::Approx(imitation(map, target, exponents)).epsilon(1e-5));
  // Each part counts.
  for (const double without : {imitation(own.map, target, exponents), imitation(map, seen, exponents),
                               imitation(map, target, {p}), imitation(own.map, seen, {p})})
    CHECK(std::abs(risk.imitation.item() - without) > 1e-3 * without);
}

TEST_CASE("an image without support is counted") {
  const auto model = small(), teacher = small();
  const SearchSpace space(*model, {2, 4}, {2, 4});
  const auto supernet = attach_supernet(*model, space);
  const Array images = random_normal(model->input_shape(4), Philox(8)),
              labels = Array::of<int32_t>({0, 1, 2, 3});
  // Features are not negative: rows of ones support every class, rows of minus ones none.
  const auto rows = [](nn::Model& of, float of_class_0) {
    Array weight = of.state().at("linear.weight");
    Array values = Array::full(weight.shape(), 1);
    std::fill_n(values.data<float>(), weight.dim(1), of_class_0);
    weight.assign(values);
  };
  const auto empty = [&] {
    return generalisation_risk(*model, *supernet, nn::explainer_of(*teacher), images, labels,
                               {.explained = ExplainedClass::label})
        .empty;
  };
  rows(*model, 1);
  rows(*teacher, 1);
  CHECK(empty() == 0);
  rows(*teacher, -1);
  CHECK(empty() == 1);
}

TEST_CASE("uniform and random policies stay within the budget") {
  const auto model = network("resnet20");
  const SearchSpace space(*model, some_bits, some_bits);
  const BitChoice uniform = uniform_choice(space, space.bops({3, 3}));
  CHECK(uniform == BitChoice(18, {3, 3}));
  CHECK(uniform_choice(space, space.bops({3, 4}) - 1) == BitChoice(18, {3, 3}));
  CHECK_THROWS_AS(uniform_choice(space, space.bops({2, 2}) - 1), argument_error);
  const int64_t high = space.bops({3, 3}), low = high * 97 / 100;
  std::vector<BitChoice> drawn;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    drawn.push_back(random_choice(space, low, high, seed));
    CHECK(space.bops(drawn.back()) >= low);
    CHECK(space.bops(drawn.back()) <= high);
    CHECK(drawn.back() == random_choice(space, low, high, seed));
  }
  CHECK(drawn[0] != drawn[1]);
  CHECK(drawn[1] != drawn[2]);
  CHECK_THROWS_AS(random_choice(space, 1, 2, 0), argument_error);
}

TEST_CASE("a policy of a choice is one that sites and files take, and gives the choice back") {
  const auto model = network("resnet20", 0.25);
  const SearchSpace space(*model, some_bits, some_bits);
  const BitChoice choice = random_choice(space, space.bops({3, 3}) * 97 / 100, space.bops({3, 3}), 1);
  const Policy policy = space.policy(*model, choice, {4, 4, "lsq"}, Skip::u8, Ends::eight);
  CHECK(policy.layers.at("conv1") == LayerPolicy{8, 8, "lsq"});
  const Policy again = Policy::parse(policy.to_json(), "policy.json");
  CHECK(again == policy);
  CHECK(space.choice(again) == choice);
  CHECK(account(*model, again).quantized == space.bops(choice));
  CHECK_NOTHROW(attach_sites(*model, again));
  // Ends and skips of 8 bits may have a quantizer of their own; searched layers keep theirs, even as ends.
  const Policy two = space.policy(*model, choice, {4, 4, "dorefa"}, Skip::u8, Ends::eight, "lsq");
  CHECK(two.layers.at("conv1") == LayerPolicy{8, 8, "lsq"});
  CHECK(two.tensors.at("stem").quantizer == "lsq");
  CHECK(two.layers.at("layer1.0.conv1").quantizer == "dorefa");
  const SearchSpace with_ends(*model, some_bits, some_bits, /*ends=*/true);
  const BitChoice all(with_ends.layers().size(), {3, 3});
  CHECK(with_ends.policy(*model, all, {4, 4, "dorefa"}, Skip::u8, Ends::eight, "lsq").layers.at("conv1") ==
        LayerPolicy{3, 3, "dorefa"});
}

TEST_CASE("Hutchinson's traces are those of a Hessian that is known") {
  // By weights and input of the last searched layer, from all second derivatives.
  const auto model = nn::make_model("resnet8", {.image_size = 4, .classes = 3, .width = 0.125});
  nn::initialise(*model, 5);
  const SearchSpace space(*model, {2, 4}, {2, 4});
  const Array images = random_normal(model->input_shape(3), Philox(10)),
              labels = Array::of<int32_t>({0, 2, 1});
  const std::string layer = space.layers().back().name;
  const auto traces = hessian_traces(*model, space, images, labels, {.probes = 1000});
  CHECK(traces.size() == 12);
  model->to(DType::f64);
  model->eval();
  // Of the loss of images first .. first + count, by the values of a tensor that leads to it.
  const auto mean_trace = [&](const Tensor& by, int64_t first, int64_t count) {
    Array x = by.value();
    const auto slope = [&](int64_t i) {
      const Tensor logits = (*model)(cast(images.slice(first, count), DType::f64));
      return grad(cross_entropy(logits, labels.slice(first, count)), by).value().data<double>()[i];
    };
    double trace = 0;
    for (int64_t i = 0; i < x.size(); ++i) {
      const double start = x.data<double>()[i], h = 1e-5;
      x.data<double>()[i] = start + h;
      const double up = slope(i);
      x.data<double>()[i] = start - h;
      trace += (up - slope(i)) / (2 * h) / static_cast<double>(x.size());
      x.data<double>()[i] = start;
    }
    return trace;
  };
  int checked = 0;
  for (const nn::NamedTensor& p : model->parameters()) {
    if (p.name != layer + ".weight") continue;
    ++checked;
    const double trace = mean_trace(p.tensor, 0, 3);
    CHECK(std::abs(trace) > 1e-4);
    CHECK(traces.at(p.name) == doctest::Approx(trace).epsilon(0.2));
  }
  // By an input: of one image and its own loss, the mean over images.
  for (const nn::NamedTap& t : model->taps()) {
    if (t.name != layer + ".input") continue;
    ++checked;
    Tensor shift;
    t.tap->hook = [&](const Tensor& x) {
      if (!shift.defined()) shift = Tensor::leaf(Array::zeros(x.shape(), DType::f64));
      return Quantized{x + shift, {}};
    };
    (*model)(cast(images.slice(0, 1), DType::f64));
    double trace = 0;
    for (int64_t i = 0; i < 3; ++i) trace += mean_trace(shift, i, 1) / 3;
    t.tap->hook = {};
    CHECK(std::abs(trace) > 1e-4);
    CHECK(traces.at(t.name) == doctest::Approx(trace).epsilon(0.2));
  }
  CHECK(checked == 2);
}

TEST_CASE("by the Hessian more bits never lose merit, and a sensitive layer gets more of them") {
  const auto model = small();
  const SearchSpace space(*model, some_bits, some_bits);
  const Array images = random_normal(model->input_shape(4), Philox(11)),
              labels = Array::of<int32_t>({0, 1, 2, 3});
  auto traces = hessian_traces(*model, space, images, labels);
  for (auto& [name, trace] : traces) trace = 1;
  traces["layer2.0.conv1.weight"] = traces["layer2.0.conv1.input"] = 1e6;
  const auto merit = hessian_merit(*model, space, traces, images);
  for (size_t layer = 0; layer < space.layers().size(); ++layer)
    CHECK(merit(layer, {2, 2}) < merit(layer, {6, 6}));
  const auto choice = space.best(merit, space.bops({3, 3}) * 97 / 100, space.bops({3, 3}));
  REQUIRE(choice);
  const size_t at = 2;
  REQUIRE(space.layers()[at].name == "layer2.0.conv1");
  CHECK((*choice)[at] == LayerBits{6, 6});
  for (const nn::NamedTap& t : model->taps()) CHECK_FALSE(t.tap->hook);
}

TEST_CASE("P19 and P20: the searched network is the one that is trained on: same layers, same topology") {
  const auto model = small();
  const SearchSpace space(*model, some_bits, some_bits);
  const auto ops = [&] {
    std::vector<std::string> names;
    for (const auto& node :
         trace([&](const Tensors& in) { return (*model)(in[0]); }, {Array::zeros(model->input_shape())})
             .nodes)
      if (node->op->name() == "conv2d" || node->op->name() == "linear" ||
          node->op->name().starts_with("batch_norm"))
        names.push_back(node->scope + ' ' + std::string(node->op->name()));
    return names;
  };
  model->eval();
  const auto plain = ops();
  attach_supernet(*model, space);
  const NoGrad no_grad;
  (*model)(random_normal(model->input_shape(2), Philox(12)));
  CHECK(ops() == plain);
  detach_supernet(*model);
  attach_sites(*model, space.policy(*model, BitChoice(6, {3, 4}), {4, 4, "lsq"}, Skip::u8, Ends::eight));
  calibrate(*model, random_normal(model->input_shape(2), Philox(12)));
  CHECK(ops() == plain);
}
