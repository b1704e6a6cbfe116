#include "kernels/random.h"

#include <algorithm>
#include <set>

#include "kernel_test.h"

using namespace stairgrad;

TEST_CASE("Philox gives the known answers of Random123") {
  using Words = std::array<uint32_t, 4>;
  CHECK(Philox(0, 0).words(0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(Philox(~uint64_t{0}, ~uint64_t{0}).words(~uint64_t{0}) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  // Counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0.
  CHECK(Philox(0x299f31d0a4093822, 0x0370734413198a2e).words(0x85a308d3243f6a88) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("uniform values fill [0, 1) evenly") {
  const Array x = random_uniform({1'000'000}, Philox(3), 0, 1, DType::f64);
  double sum = 0, squares = 0, low = 1, high = 0;
  std::vector<int> bins(100);
  for (const double u : x.to_vector()) {
    sum += u;
    squares += u * u;
    low = std::min(low, u);
    high = std::max(high, u);
    ++bins[static_cast<size_t>(u * 100)];
  }
  CHECK(low >= 0);
  CHECK(low < 1e-5);
  CHECK(high < 1);
  CHECK(high > 1 - 1e-5);
  CHECK(sum / 1e6 == doctest::Approx(0.5).epsilon(0.003));  // five standard deviations
  CHECK(squares / 1e6 == doctest::Approx(1 / 3.0).epsilon(0.005));
  double chi_square = 0;
  for (const int count : bins) chi_square += (count - 1e4) * (count - 1e4) / 1e4;
  CHECK(chi_square < 180);  // 99 degrees of freedom
}

TEST_CASE("uniform values stay below the upper end in every type") {
  for_every_float([](DType dtype) {
    for (const double high : {1.0, 2.0, -1.0}) {
      const Array x = random_uniform({20000}, Philox(4), high - 1, high, dtype);
      for (const double v : x.to_vector()) {
        CHECK_FALSE(v >= high);
        CHECK_FALSE(v < high - 1);
      }
    }
    for (const double v : random_uniform({20000}, Philox(4), -1, 0, dtype).to_vector()) CHECK_FALSE(v >= 0);
  });
}

TEST_CASE("normal values have the moments of a normal distribution") {
  const std::vector<double> x = random_normal({1'000'000}, Philox(5), 1, DType::f64).to_vector();
  double moments[5] = {};
  int beyond_two = 0;
  for (const double v : x) {
    for (int k = 1; k <= 4; ++k) moments[k] += std::pow(v, k) / 1e6;
    beyond_two += std::abs(v) > 2;
  }
  CHECK(std::abs(moments[1]) < 0.005);
  CHECK(moments[2] == doctest::Approx(1).epsilon(0.01));
  CHECK(std::abs(moments[3]) < 0.02);
  CHECK(moments[4] == doctest::Approx(3).epsilon(0.02));
  CHECK(beyond_two / 1e6 == doctest::Approx(0.0455).epsilon(0.03));
  CHECK(random_normal({10}, Philox(5), 2.5, DType::f64).to_vector()[7] == doctest::Approx(2.5 * x[7]));
}

TEST_CASE("Beta(alpha, alpha): mean 1/2, variance 1 / (8 alpha + 4)") {
  for (const double alpha : {0.001, 0.2, 1.0, 2.0}) {
    RandomSequence draws{Philox(7)};
    double sum = 0, squares = 0;
    constexpr int n = 20000;
    for (int i = 0; i < n; ++i) {
      const double x = draws.beta(alpha);
      CHECK((x >= 0 && x <= 1));
      sum += x;
      squares += (x - 0.5) * (x - 0.5);
    }
    CHECK(sum / n == doctest::Approx(0.5).epsilon(0.02));
    CHECK(squares / n == doctest::Approx(1 / (8 * alpha + 4)).epsilon(0.03));
  }
  CHECK_THROWS_AS(RandomSequence(Philox(7)).beta(0), argument_error);
}

TEST_CASE("Gamma(k): mean k, variance k, third central moment 2 k") {
  for (const double k : {0.3, 1.0, 4.5}) {
    CAPTURE(k);
    RandomSequence draws{Philox(10)};
    double sum = 0, squares = 0, cubes = 0, least = 1;
    constexpr int n = 200000;
    for (int i = 0; i < n; ++i) {
      const double x = draws.gamma(k);
      least = std::min(least, x);
      sum += x;
      squares += std::pow(x - k, 2);
      cubes += std::pow(x - k, 3);
    }
    CHECK(least > 0);
    CHECK(sum / n == doctest::Approx(k).epsilon(0.02));
    CHECK(squares / n == doctest::Approx(k).epsilon(0.05));
    CHECK(cubes / n == doctest::Approx(2 * k).epsilon(0.2));
  }
  CHECK_THROWS_AS(RandomSequence(Philox(10)).gamma(0), argument_error);
}

TEST_CASE("a sequence is one stream in order, from where it starts") {
  const Philox rng(11, 3);
  RandomSequence draws(rng), later(rng, 2);
  CHECK(draws.uniform() == rng.uniform(0));
  CHECK(draws.uniform(2, 6) == 2 + 4 * rng.uniform(1));
  CHECK(draws.normal() == rng.normal(2));
  CHECK(draws.below(1000) == static_cast<int64_t>(rng.below(3, 1000)));
  CHECK(later.uniform() == rng.uniform(2));
}

TEST_CASE("neighbouring values and streams are uncorrelated") {
  const std::vector<double> x = random_normal({200'001}, Philox(6, 0), 1, DType::f64).to_vector(),
                            y = random_normal({200'001}, Philox(6, 1), 1, DType::f64).to_vector();
  double lag = 0, across = 0;
  for (size_t i = 0; i + 1 < x.size(); ++i) {
    lag += x[i] * x[i + 1] / 2e5;
    across += x[i] * y[i] / 2e5;
  }
  CHECK(std::abs(lag) < 0.012);
  CHECK(std::abs(across) < 0.012);
}

TEST_CASE("random arrays do not depend on the number of threads, and a shorter one is a prefix") {
  check_reproducible([] { return random_normal({10007}, Philox(7)); });
  check_reproducible([] { return random_uniform({10007}, Philox(7), -1, 3, DType::bf16); });
  CHECK(same_bits(random_normal({50}, Philox(7)), random_normal({10007}, Philox(7)).slice(0, 50)));
  CHECK_FALSE(same_bits(random_normal({50}, Philox(7)), random_normal({50}, Philox(8))));
}

TEST_CASE("a permutation has every number once, and all permutations happen") {
  std::vector<int64_t> order = random_permutation(1000, Philox(8));
  CHECK(order != random_permutation(1000, Philox(9)));
  CHECK(order == random_permutation(1000, Philox(8)));
  std::sort(order.begin(), order.end());
  for (size_t i = 0; i < order.size(); ++i) CHECK(order[i] == static_cast<int64_t>(i));
  CHECK(random_permutation(0, Philox(1)).empty());
  CHECK(random_permutation(1, Philox(1)) == std::vector<int64_t>{0});

  std::vector<int> counts(6);  // of the six orders of three
  for (uint64_t seed = 0; seed < 6000; ++seed) {
    const std::vector<int64_t> p = random_permutation(3, Philox(seed));
    ++counts[static_cast<size_t>(p[0] * 2 + (p[1] > p[2]))];
  }
  for (const int count : counts) CHECK(std::abs(count - 1000) < 150);
}

TEST_CASE("streams of names differ") {
  std::set<uint64_t> streams;
  for (const char* name : {"", "a", "b", "ab", "ba", "conv1", "conv2", "layer1.0.conv1"})
    streams.insert(stream_of(name));
  CHECK(streams.size() == 8);
}
