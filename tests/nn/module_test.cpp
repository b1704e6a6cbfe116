// Modules: names, state, initial values, modes.
#include "../../nn/module.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "../../nn/layers.h"
#include "../../nn/model.h"
#include "../../nn/resnet.h"
#include "../message.h"

using namespace stairgrad;
using namespace stairgrad::nn;

namespace {

bool same(const Array& a, const Array& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() && a.to_vector() == b.to_vector();
}

bool same(const State& a, const State& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.first == y.first && same(x.second, y.second);
  });
}

std::vector<std::string> names_of(const std::vector<NamedTensor>& parameters) {
  std::vector<std::string> names;
  for (const NamedTensor& p : parameters) names.push_back(p.name);
  return names;
}

// Two convolutions that a test can add in either order.
struct Pair : Module {
  explicit Pair(bool swapped) {
    const auto make = [] { return std::make_shared<Conv2d>(2, 3, 3); };
    for (const char* name : {"a", "b"}) convs.push_back({name, make()});
    if (swapped) std::swap(convs[0], convs[1]);
    for (const auto& [name, conv] : convs) add_module(name, conv);
  }
  std::vector<std::pair<std::string, std::shared_ptr<Conv2d>>> convs;
};

}  // namespace

TEST_CASE("names are torchvision's, in the order of construction") {
  const BasicBlock block(4, 8, 2, Shortcut::B);
  CHECK(names_of(block.parameters()) == std::vector<std::string>{"conv1.weight", "bn1.weight", "bn1.bias",
                                                                 "conv2.weight", "bn2.weight", "bn2.bias",
                                                                 "downsample.0.weight", "downsample.1.weight",
                                                                 "downsample.1.bias"});
  CHECK(block.state().count("downsample.1.running_var") == 1);
  CHECK(block.state().size() == 9 + 6);
}

TEST_CASE("taps are listed by path") {
  BasicBlock block(4, 4, 1, Shortcut::A);
  std::vector<std::string> names;
  for (const NamedTap& tap : block.taps()) names.push_back(tap.name);
  CHECK(names ==
        std::vector<std::string>{"output", "conv1.weight", "conv1.input", "conv2.weight", "conv2.input"});
}

TEST_CASE("state makes the round trip") {
  BasicBlock from(3, 6, 2, Shortcut::B), to(3, 6, 2, Shortcut::B);
  initialise(from, 5);
  CHECK(!same(from.state(), to.state()));
  CHECK(to.load_state(from.state()).none());
  CHECK(same(from.state(), to.state()));
}

TEST_CASE("load_state lists every mismatch and changes nothing") {
  Conv2d conv(2, 3, 3, {}, /*bias=*/true);
  initialise(conv, 1);
  const Array before = conv.weight.value().clone();
  const State values = {{"weight", Array::zeros({3, 3, 3, 4})}, {"extra", Array::zeros({1})}};
  CHECK(message_of<argument_error>([&] { conv.load_state(values); }) ==
        "[load_state] the values do not fit the model: missing: bias; unexpected: extra; of another shape: "
        "weight "
        "(got (3,3,3,4), expected (3,3,3,2))");
  CHECK(same(before, conv.weight.value()));
}

TEST_CASE("partial loading takes what fits") {
  Conv2d conv(2, 3, 1, {}, /*bias=*/true);
  const StateMismatch mismatch =
      conv.load_state({{"bias", Array::full({3}, 7)}, {"weight", Array::zeros({1})}}, /*partial=*/true);
  CHECK(mismatch.missing.empty());
  CHECK(mismatch.misshaped.size() == 1);
  CHECK(conv.bias.value().to_vector() == std::vector<double>{7, 7, 7});
}

TEST_CASE("loading converts types and bumps versions") {
  Linear linear(2, 1, /*bias=*/false);
  const uint64_t version = linear.weight.value().version();
  linear.load_state({{"weight", Array::of<double>({0.5, -2}, {1, 2})}});
  CHECK(linear.weight.dtype() == DType::f32);
  CHECK(linear.weight.value().to_vector() == std::vector<double>{0.5, -2});
  CHECK(linear.weight.value().version() > version);
}

TEST_CASE("initial values depend on seed and name alone") {
  Pair one(false), other(true);
  initialise(one, 3);
  initialise(other, 3);
  CHECK(same(one.state(), other.state()));
  CHECK(!same(one.convs[0].second->weight.value(), one.convs[1].second->weight.value()));
  initialise(other, 4);
  CHECK(!same(one.state(), other.state()));
}

TEST_CASE("initial weights have He's variance") {
  Conv2d conv(64, 64, 3);
  initialise(conv, 0);
  const std::vector<double> w = conv.weight.value().to_vector();
  double sum = 0, squares = 0;
  for (const double x : w) sum += x, squares += x * x;
  const double n = static_cast<double>(w.size()), variance = 2.0 / (64 * 9);
  CHECK(std::abs(sum / n) < 4 * std::sqrt(variance / n));
  CHECK(std::abs(squares / n / variance - 1) < 0.03);
}

TEST_CASE("train and eval reach every child, Evaluation restores each mode") {
  BasicBlock block(2, 2, 1, Shortcut::A);
  const std::vector<NamedModule> all = block.modules();
  REQUIRE(all.size() == 5);
  all[2].module->eval();  // one layer is frozen
  {
    const Evaluation evaluation(block);
    for (const NamedModule& m : all) CHECK(!m.module->training());
  }
  for (const NamedModule& m : all) CHECK(m.module->training() == (m.module != all[2].module));
  block.train();
  for (const NamedModule& m : all) CHECK(m.module->training());
}

TEST_CASE("to() converts parameters and buffers where the layers see them") {
  Sequential net({std::make_shared<Conv2d>(1, 2, 1), std::make_shared<BatchNorm2d>(2)});
  initialise(net, 1);
  const State before = net.state();
  net.to(DType::f64);
  for (const auto& [name, array] : net.state()) {
    CHECK(array.dtype() == DType::f64);
    CHECK(same(cast(array, DType::f32), before.at(name)));
  }
  const Tensor y = net(Array::full({1, 2, 2, 1}, 1, DType::f64));
  CHECK(y.dtype() == DType::f64);
  CHECK_THROWS_AS(net.to(DType::bf16), argument_error);
}

TEST_CASE("an attached module goes with the model until it is replaced or taken out") {
  const auto model = make_model("resnet8", {.width = 0.25});
  model->eval();
  const size_t own = model->state().size();
  const auto first = std::make_shared<BatchNorm2d>(3), second = std::make_shared<BatchNorm2d>(5);
  model->attach("extra", first);
  CHECK(!first->training());
  CHECK(model->state().size() == own + 4);
  model->attach("extra", second);
  CHECK(model->state().size() == own + 4);
  CHECK(model->state().at("extra.running_var").shape() == Shape{5});
  model->train();
  CHECK(second->training());
  CHECK(!first->training());
  model->detach("extra");
  CHECK(model->state().size() == own);
}
