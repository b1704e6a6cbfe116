// Observers: ranges that are known beforehand.
#include "../../quant/observers.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "../../kernels/random.h"
#include "../../kernels/threads.h"
#include "../../quant/quantizers/backward.h"
#include "../../quant/quantizers/ranges.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace {

Ranges ranges_of(const std::string& name, const std::vector<Array>& batches,
                 const ObserverOptions& options = {}) {
  const auto observer = make_observer(name, options);
  for (const Array& x : batches) observer->observe(x);
  return observer->ranges();
}
ValueRange range_of(const std::string& name, const std::vector<Array>& batches,
                    const ObserverOptions& options = {}) {
  return ranges_of(name, batches, options)[0];
}
Array of(const std::vector<float>& values) { return Array::of(values); }
Array magnitudes(const Array& x) {
  Array y = x.clone();
  for (int64_t i = 0; i < y.size(); ++i) y.data<float>()[i] = std::abs(y.data<float>()[i]);
  return y;
}
// 1, 2, ..., n
Array ramp(int n, float step = 1) {
  std::vector<float> values;
  for (int i = 1; i <= n; ++i) values.push_back(static_cast<float>(i) * step);
  return of(values);
}
// Normal values without the chance: quantiles at the middles of n equal shares, by bisection.
Array normal_quantiles(int n) {
  std::vector<float> values;
  for (int i = 0; i < n; ++i) {
    double low = -9, high = 9;
    for (int step = 0; step < 60; ++step) {
      const double middle = (low + high) / 2;
      (std::erfc(-middle / std::sqrt(2)) / 2 < (i + 0.5) / n ? low : high) = middle;
    }
    values.push_back(static_cast<float>(low));
  }
  return of(values);
}

}  // namespace

TEST_CASE("minmax: the extremes of all batches, with 0 between them, or symmetric") {
  const std::vector<Array> batches = {of({0.5f, 2}), of({-1, 1}), of({0, 3, 0.1f})};
  const ValueRange r = range_of("minmax", batches), s = range_of("minmax", batches, {.symmetric = true});
  CHECK((r.low == -1 && r.high == 3));
  CHECK((s.low == -3 && s.high == 3));
  const ValueRange positive = range_of("minmax", {of({2, 5})}), negative = range_of("minmax", {of({-2, -5})});
  CHECK((positive.low == 0 && positive.high == 5));
  CHECK((negative.low == -5 && negative.high == 0));
}

TEST_CASE("ema: weights momentum^age, without a bias towards the start") {
  const std::vector<double> highs = {1, 4, 2, 8, 3};
  const auto observer = make_observer("ema", {.momentum = 0.8});
  double weighted = 0, weights = 0;
  for (const double high : highs) {
    observer->observe(of({static_cast<float>(-high / 2), static_cast<float>(high)}));
    weighted = 0.8 * weighted + high;
    weights = 0.8 * weights + 1;
    const ValueRange r = observer->ranges()[0];
    CHECK(r.high == doctest::Approx(weighted / weights).epsilon(1e-12));
    CHECK(r.low == doctest::Approx(-weighted / weights / 2).epsilon(1e-12));
  }
  // A constant stream gives the constant from the first batch on.
  const std::vector<Array> same(7, of({0, 3}));
  CHECK(range_of("ema", same).high == doctest::Approx(3).epsilon(1e-12));
}

TEST_CASE("image_mean: the extremes of each image, averaged over all images") {
  const Array first = Array::of<float>({0, 1, -1, 3}, {2, 2}), second = Array::of<float>({-5, 8}, {1, 2});
  const ValueRange r = range_of("image_mean", {first, second});
  CHECK(r.low == doctest::Approx((0 - 1 - 5) / 3.0));
  CHECK(r.high == doctest::Approx((1 + 3 + 8) / 3.0));
  CHECK_THROWS_AS(ranges_of("image_mean", {first}, {.groups = 2}), argument_error);
}

TEST_CASE("percentile: what it leaves outside, to a bin of the histogram") {
  CHECK(range_of("percentile", {ramp(1000)}, {.percentile = 99}).high == doctest::Approx(990).epsilon(1e-3));
  CHECK(range_of("percentile", {ramp(1000)}, {.percentile = 100}).high == 1000);
  const Array both = random_uniform({200000}, Philox(1), -1, 1);
  const ValueRange r = range_of("percentile", {both}, {.percentile = 90});
  CHECK(r.low == doctest::Approx(-0.9).epsilon(0.01));
  CHECK(r.high == doctest::Approx(0.9).epsilon(0.01));
  CHECK(range_of("percentile", {both}, {.symmetric = true, .percentile = 90}).high ==
        doctest::Approx(0.9).epsilon(0.01));
  // Two outliers in ten thousand values are beyond 99.9 %.
  Array x = random_uniform({10000}, Philox(2));
  x.data<float>()[17] = 1000;
  x.data<float>()[4711] = 500;
  CHECK(range_of("percentile", {x}, {.percentile = 99.9}).high < 2);
}

TEST_CASE("sigma: mean and deviation of the whole stream, at most the extremes") {
  Array x = random_normal({40000}, Philox(3), 0.5);
  for (int64_t i = 0; i < x.size(); ++i) x.data<float>()[i] += 0.3f;
  const ValueRange r = range_of("sigma", {x}, {.sigmas = 2});
  CHECK(r.low == doctest::Approx(0.3 - 1).epsilon(0.02));
  CHECK(r.high == doctest::Approx(0.3 + 1).epsilon(0.02));
  // Batches of different sizes and means add up to the same moments.
  std::vector<Array> parts = {x.slice(0, 100).clone(), x.slice(100, 30000).clone(),
                              x.slice(30100, 9900).clone()};
  const ValueRange streamed = range_of("sigma", parts, {.sigmas = 2});
  CHECK(streamed.low == doctest::Approx(r.low).epsilon(1e-9));
  CHECK(streamed.high == doctest::Approx(r.high).epsilon(1e-9));
  CHECK(range_of("sigma", {of({-1, 1})}, {.symmetric = true, .sigmas = 5}).high == 1);
  CHECK(range_of("sigma", {of({1, 2, 1, 2, 1, 2})}, {.symmetric = true, .sigmas = 1}).high ==
        doctest::Approx(2));
}

TEST_CASE("mse: the uniform quantizer of normal data with the least squared error (Max, 1960)") {
  // Steps of the optimal uniform quantizers with 2, 4, 8 and 16 levels for deviation 1.
  const std::pair<int, double> steps[] = {{1, 1.596}, {2, 0.9957}, {3, 0.5860}, {4, 0.3352}};
  const Array x = normal_quantiles(20000);
  for (const auto& [bits, step] : steps) {
    const ValueRange r = range_of("mse", {x}, {.bits = bits, .symmetric = true, .power = 2});
    CHECK(r.high == doctest::Approx(step * ((1 << bits) - 1) / 2).epsilon(0.01));
    CHECK(r.low == -r.high);
  }
}

TEST_CASE("mse: no other factor has less error, for any power, and grids that fit are found exactly") {
  const Array x = random_normal({3000}, Philox(5));
  for (const bool symmetric : {true, false})
    for (const double power : {1.0, 2.0, 2.4, 4.0})
      for (const Array& data : {x, magnitudes(x)}) {
        const ObserverOptions options{.bits = 3, .symmetric = symmetric, .power = power};
        const auto error = [&](const ValueRange& r) {
          const Grid g = symmetric ? symmetric_grid(r.high, 3) : zero_grid(r.low, r.high, 3);
          double sum = 0;
          for (const double value : data.to_vector())
            sum += std::pow(std::abs(value - grid::decode(grid::encode(static_cast<float>(value), g), g)),
                            power);
          return sum;
        };
        const ValueRange found = range_of("mse", {data}, options), all = range_of("minmax", {data}, options);
        for (int i = 1; i <= 50; ++i)
          CHECK(error(found) <= 1.01 * error({all.low * i / 50, all.high * i / 50}));
      }
  // Data on the levels of a grid over its extremes.
  const Array levels = ramp(15, 0.1f);
  CHECK(range_of("mse", {levels}, {.bits = 4}).high == doctest::Approx(1.5));
}

TEST_CASE(
    "mse: the quick sum that narrows the search is that of the definition, unless it is beyond the bound") {
  const std::vector<double> x = random_normal({1300}, Philox(4)).to_vector();
  const std::vector<float> values(x.begin(), x.end());
  std::vector<float> counts(values.size());
  for (size_t i = 0; i < counts.size(); ++i) counts[i] = static_cast<float>(i % 5);
  for (const double power : {1.0, 2.0, 2.4, 8.0})
    for (const Grid& g : {Grid{0.5f, 4, 0, 7}, Grid{0.01f, 0, -127, 127}, Grid{0.7f, 1.5, 0, 3}}) {
      double sum = 0;
      for (size_t i = 0; i < values.size(); ++i)
        sum += static_cast<double>(counts[i]) *
               std::pow(std::abs(values[i] - grid::decode(grid::encode(values[i], g), g)), power);
      CHECK(rounding_error(values, counts, g, power, HUGE_VAL) == doctest::Approx(sum).epsilon(1e-5));
      CHECK(rounding_error(values, counts, g, power, sum / 3) > sum / 3);
    }
}

TEST_CASE("kl: keeps what is dense and gives up a sparse tail") {
  // Equal counts in all bins: nothing is lost by the coarsest groups, something by clipping.
  for (const int bits : {2, 4, 8}) CHECK(range_of("kl", {ramp(2048)}, {.bits = bits}).high == 2048);
  const Array x = normal_quantiles(20000);
  const double plain = range_of("kl", {x}, {.bits = 8, .symmetric = true}).high;
  CHECK(plain > 2.5);
  CHECK(plain <= 4.2);
  Array tail = x.clone();
  tail.data<float>()[3] = 40;
  const double clipped = range_of("kl", {tail}, {.bits = 8, .symmetric = true}).high;
  CHECK(clipped < 10);
  CHECK(clipped > 2);
  const ValueRange positive = range_of("kl", {magnitudes(x)}, {.bits = 8});
  CHECK((positive.low == 0 && positive.high > 2.5));
}

TEST_CASE("every observer: batches in any order, one range for each group, symmetric ranges, types") {
  const Array x = random_normal({6, 500}, Philox(7));
  for (const std::string& name : observer_names()) {
    CAPTURE(name);
    for (const bool symmetric : {true, false}) {
      const ValueRange r = range_of(name, {x}, {.bits = 4, .symmetric = symmetric});
      CHECK((r.low < 0 && r.high > 0));
      if (symmetric) CHECK(r.low == -r.high);
      CHECK(r.high <= 1.0001 * std::max(range_of("minmax", {x}).high, -range_of("minmax", {x}).low));

      // Rounding to bf16 moves values by less than a half percent.
      const ValueRange narrow = range_of(name, {cast(x, DType::bf16)}, {.bits = 4, .symmetric = symmetric});
      const ValueRange wide = range_of(name, {cast(x, DType::f64)}, {.bits = 4, .symmetric = symmetric});
      CHECK(narrow.high == doctest::Approx(r.high).epsilon(0.05));
      CHECK(wide.high == doctest::Approx(r.high).epsilon(1e-6));
    }
    if (!name.starts_with("ema")) {
      const std::vector<Array> parts = {x.slice(0, 2), x.slice(2, 4)}, back = {x.slice(2, 4), x.slice(0, 2)};
      CHECK(range_of(name, parts).high == doctest::Approx(range_of(name, back).high).epsilon(0.02));
      CHECK(range_of(name, parts).high == doctest::Approx(range_of(name, {x}).high).epsilon(0.02));
    }
    if (name == "image_mean") continue;
    const Ranges groups = ranges_of(name, {x}, {.bits = 4, .symmetric = true, .groups = 6});
    REQUIRE(groups.size() == 6);
    for (int64_t g = 0; g < 6; ++g)
      CHECK(groups[static_cast<size_t>(g)].high ==
            range_of(name, {x.slice(g, 1)}, {.bits = 4, .symmetric = true}).high);
  }
}

TEST_CASE("every observer: zeros, constants, one element, growing data") {
  for (const std::string& name : observer_names()) {
    CAPTURE(name);
    for (const bool symmetric : {true, false}) {
      const ValueRange zero = range_of(name, {Array::zeros({8})}, {.symmetric = symmetric});
      CHECK((zero.low == 0 && zero.high == 0));
      const ValueRange one = range_of(name, {of({0.25f})}, {.symmetric = symmetric});
      CHECK(one.high > 0);
      CHECK(one.high <= 0.25);
      // The histogram starts at the scale of the first batch and must widen.
      const ValueRange grown =
          range_of(name, {Array::zeros({8}), of({1e-3f}), ramp(1000)}, {.symmetric = symmetric});
      CHECK(grown.high <= 1000.1);
      CHECK(grown.high > (name == "image_mean" ? 90 : 200));
    }
  }
}

TEST_CASE("observers refuse what has no range, and unknown names") {
  for (const std::string& name : observer_names()) {
    const auto observer = make_observer(name, {});
    CHECK_THROWS_AS(observer->ranges(), argument_error);
    CHECK_THROWS_AS(observer->observe(Array(Shape{0})), argument_error);
    for (const float bad : {NAN, HUGE_VALF, -HUGE_VALF})
      CHECK_THROWS_AS(observer->observe(of({0, bad, 1})), numeric_error);
    CHECK_THROWS_AS(observer->ranges(), argument_error);
  }
  CHECK_THROWS_AS(make_observer("mse", {.groups = 2})->observe(of({1, 2, 3})), argument_error);
  CHECK_THROWS_WITH_AS(make_observer("minmix", {}), doctest::Contains("did you mean 'minmax'?"),
                       argument_error);
  CHECK_THROWS_AS(make_observer("mse", {.bits = 9}), argument_error);
}

TEST_CASE("average_in: one batch is itself") {
  Ranges average;
  double batches = 0;
  average_in(average, {{-1, 2}}, batches, 0.9);
  CHECK((average[0].low == -1 && average[0].high == 2 && batches == 1));
}
