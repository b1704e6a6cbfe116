// Optimisers and schedules against their formulas, one number at a time.
#include "../../nn/optimiser.h"

#include <doctest/doctest.h>

#include <cmath>
#include <numbers>

#include "../../kernels/random.h"

using namespace stairgrad;
using namespace stairgrad::nn;

namespace {

constexpr int64_t size = 37;  // no multiple of a vector

Array normal(uint64_t stream) { return random_normal({size}, Philox(5, stream)); }

NamedTensor parameter(const std::string& name, uint64_t stream) {
  return {name, Tensor::leaf(normal(stream), name)};
}

void check_near(const Array& got, const std::vector<double>& expected) {
  for (size_t i = 0; i < expected.size(); ++i)
    CHECK(got.to_vector()[i] == doctest::Approx(expected[i]).epsilon(1e-5));
}

}  // namespace

TEST_CASE("SGD is PyTorch's: decay, momentum, Nesterov") {
  for (const bool nesterov : {false, true}) {
    const NamedTensor p = parameter("w", 0);
    SGD sgd({{{p}, /*lr_scale=*/0.5, /*weight_decay=*/0.1}}, 0.9, nesterov);
    std::vector<double> w = p.tensor.value().to_vector(), v(w.size(), 0);
    for (uint64_t step = 1; step <= 3; ++step) {
      const Array gradient = normal(step);
      const double lr = 0.2 / static_cast<double>(step);
      sgd.step({gradient}, lr);
      for (size_t i = 0; i < w.size(); ++i) {
        const double g = gradient.to_vector()[i] + 0.1 * w[i];
        v[i] = 0.9 * v[i] + g;
        w[i] -= 0.5 * lr * (nesterov ? g + 0.9 * v[i] : v[i]);
      }
      check_near(p.tensor.value(), w);
    }
    check_near(sgd.state().at("momentum.w"), v);
  }
}

TEST_CASE("AdamW decays apart from the gradient and corrects the bias") {
  const NamedTensor p = parameter("w", 0);
  AdamW adam({{{p}, 1, 0.05}}, 0.8, 0.95, 1e-6);
  std::vector<double> w = p.tensor.value().to_vector(), m(w.size(), 0), v(w.size(), 0);
  for (int step = 1; step <= 4; ++step) {
    const Array gradient = normal(static_cast<uint64_t>(step));
    adam.step({gradient}, 0.01);
    for (size_t i = 0; i < w.size(); ++i) {
      const double g = gradient.to_vector()[i];
      m[i] = 0.8 * m[i] + 0.2 * g;
      v[i] = 0.95 * v[i] + 0.05 * g * g;
      const double mean = m[i] / (1 - std::pow(0.8, step)), square = v[i] / (1 - std::pow(0.95, step));
      w[i] = w[i] * (1 - 0.01 * 0.05) - 0.01 * mean / (std::sqrt(square) + 1e-6);
    }
    check_near(p.tensor.value(), w);
  }
}

TEST_CASE("groups keep their settings and parameters their order") {
  const NamedTensor a = parameter("a", 0), b = parameter("b", 1);
  const std::vector<double> before = b.tensor.value().to_vector();
  SGD sgd({{{a}}, {{b}, /*lr_scale=*/0}}, 0);
  REQUIRE(sgd.parameters().size() == 2);
  CHECK(sgd.parameters()[1].name() == "b");
  std::vector<double> moved = a.tensor.value().to_vector();
  for (double& x : moved) x -= 2;
  sgd.step({Array::full({size}, 2), Array::full({size}, 2)}, 1);
  check_near(a.tensor.value(), moved);
  CHECK(b.tensor.value().to_vector() == before);
}

TEST_CASE("a step bumps versions and counts gradients") {
  const NamedTensor p = parameter("w", 0);
  SGD sgd({{{p}}});
  const uint64_t version = p.tensor.value().version();
  sgd.step({normal(1)}, 0.1);
  CHECK(p.tensor.value().version() > version);
  CHECK_THROWS_AS(sgd.step({normal(1), normal(2)}, 0.1), argument_error);
}

TEST_CASE("an optimiser goes on from its state, bit for bit") {
  const NamedTensor one = parameter("w", 0), other = parameter("w", 0);
  AdamW first({{{one}}}), second({{{other}}});
  for (uint64_t step = 1; step <= 2; ++step) first.step({normal(step)}, 0.1);
  Array copy = other.tensor.value();
  copy.assign(one.tensor.value());
  second.load_state(first.state());
  first.step({normal(9)}, 0.1);
  second.step({normal(9)}, 0.1);
  CHECK(one.tensor.value().to_vector() == other.tensor.value().to_vector());
}

TEST_CASE("a state of another optimiser is refused as a whole") {
  const NamedTensor p = parameter("w", 0);
  SGD sgd({{{p}}});
  sgd.step({normal(1)}, 0.1);
  const std::vector<double> before = sgd.state().at("momentum.w").to_vector();
  CHECK_THROWS_WITH_AS(sgd.load_state(AdamW({{{p}}}).state()),
                       "[optimiser] the state belongs to another model or optimiser: missing: momentum.w; "
                       "unexpected: mean.w square.w",
                       argument_error);
  CHECK(sgd.state().at("momentum.w").to_vector() == before);
}

TEST_CASE("cosine schedule") {
  CHECK(cosine_schedule(2, 0, 110, 10) == doctest::Approx(0.2));
  CHECK(cosine_schedule(2, 9, 110, 10) == doctest::Approx(2));
  CHECK(cosine_schedule(2, 10, 110, 10) == doctest::Approx(2));
  CHECK(cosine_schedule(2, 60, 110, 10) == doctest::Approx(1));
  CHECK(cosine_schedule(2, 35, 110, 10) == doctest::Approx(1 + std::cos(std::numbers::pi / 4)));
  CHECK(cosine_schedule(2, 110, 110, 10) == doctest::Approx(0));
  CHECK(cosine_schedule(2, 500, 110, 10) == doctest::Approx(0));
  CHECK(cosine_schedule(2, 0, 0) == doctest::Approx(2));
}

TEST_CASE("step schedule") {
  CHECK(step_schedule(1, 9, {10, 20}) == 1);
  CHECK(step_schedule(1, 10, {10, 20}) == doctest::Approx(0.1));
  CHECK(step_schedule(1, 25, {10, 20}, 0.5) == doctest::Approx(0.25));
}
