// Decisions of a selector, judged, and other ways to spend the same bits.
#include <doctest/doctest.h>

#include <cmath>

#include "../../quant/datafree/selection_metrics.h"
#include "dynamic.h"

using namespace stairgrad;
using namespace stairgrad::quant;
using namespace stairgrad::quant::datafree;

TEST_CASE("T20: precision, recall, ROC and rank correlation of hand-made decisions") {
  const std::vector<bool> chosen = {true, true, true, false, false},
                          needed = {true, true, false, true, false};
  const Decisions d = compare_decisions(chosen, needed);
  CHECK(d.true_positive == 2);
  CHECK(d.precision() == doctest::Approx(2.0 / 3));
  CHECK(d.recall() == doctest::Approx(2.0 / 3));
  CHECK(d.f1() == doctest::Approx(2.0 / 3));
  const Decisions none = compare_decisions({false, false}, {false, false});
  CHECK(std::isnan(none.precision()));
  CHECK(std::isnan(none.recall()));
  CHECK(std::isnan(none.f1()));
  CHECK(roc_auc({0.9, 0.8, 0.7, 0.6}, {true, false, true, false}) == doctest::Approx(0.75));
  CHECK(roc_auc({1, 1, 1}, {true, false, true}) == doctest::Approx(0.5));
  CHECK(std::isnan(roc_auc({1, 2}, {true, true})));
  CHECK(spearman({1, 2, 3, 4, 5}, {10, 20, 30, 40, 50}).value == doctest::Approx(1));
  const Correlation c = spearman({1, 2, 3, 4, 5, 6}, {2, 1, 4, 3, 6, 5});
  CHECK(c.value == doctest::Approx(1 - 6.0 * 6 / (6 * 35)));
  // tanh(atanh(r) -+ 1.959964 sqrt((1 + r^2 / 2) / (n - 3)))
  CHECK(c.low == doctest::Approx(-0.12724).epsilon(1e-4));
  CHECK(c.high == doctest::Approx(0.98648).epsilon(1e-4));
  CHECK(std::isnan(spearman({1, 1, 1, 1}, {1, 2, 3, 4}).value));
  CHECK(spearman({1, 1, 2, 2}, {1, 1, 2, 2}).value == doctest::Approx(1));  // ties
  CHECK_THROWS_AS(compare_decisions({true}, {}), argument_error);
  const Array full = Array::of<float>({2, 0, 0, 2}, {2, 2}), low = Array::of<float>({0, 2, 0, 2}, {2, 2});
  CHECK(needs_bits(low, full, {0, 1}) == std::vector<bool>{true, false});
  const std::vector<double> omega = sensitivity(full, low);
  CHECK(omega[0] == doctest::Approx(2 * (std::exp(2.0) - 1) / (std::exp(2.0) + 1)));
  CHECK(omega[1] == doctest::Approx(0));
}

TEST_CASE("other ways to spend the same bits cost no more, and an oracle gains the most") {
  const int64_t n = 60, sites = 5;
  SiteCosts cost;
  for (int s = 0; s < sites; ++s) cost.push_back({1.0 + s, 2.0 + 2 * s, 4.0 + 3 * s});
  Array choices({n, sites}, DType::u8);
  for (int64_t i = 0; i < choices.size(); ++i)
    choices.data<uint8_t>()[i] = static_cast<uint8_t>(Philox(3).below(static_cast<uint64_t>(i), 3));
  const double budget = mean_cost(choices, cost);
  const Array shuffled = shuffled_choices(choices, 1), fixed = static_choices(choices, cost);
  CHECK(mean_cost(shuffled, cost) == doctest::Approx(budget));
  CHECK_FALSE(same_bytes(shuffled, choices));
  CHECK(mean_cost(fixed, cost) <= budget * (1 + 1e-6));
  CHECK(mean_cost(fixed, cost) > 0.8 * budget);
  for (int64_t i = 1; i < n; ++i) CHECK(same_bytes(fixed.slice(i, 1), fixed.slice(0, 1)));
  std::vector<std::vector<double>> gain;
  for (int64_t i = 0; i < n; ++i) {
    const double need = Philox(5).uniform(static_cast<uint64_t>(i));
    gain.push_back({0, need, 1.2 * need});
  }
  const Array oracle = oracle_choices(gain, cost, budget);
  CHECK(mean_cost(oracle, cost) <= budget * (1 + 1e-6));
  CHECK(mean_cost(oracle, cost) > 0.9 * budget);
  const auto gained = [&](const Array& some) {
    double total = 0;
    for (int64_t i = 0; i < n; ++i) total += gain[static_cast<size_t>(i)][some.data<uint8_t>()[i * sites]];
    return total;
  };
  for (uint64_t seed = 0; seed < 5; ++seed) CHECK(gained(oracle) >= gained(shuffled_choices(oracle, seed)));
  CHECK(mean_cost(oracle_choices(gain, cost, 1e9), cost) == doctest::Approx(50));  // all at the most
}
