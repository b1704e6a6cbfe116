// What post-training methods are made of: grids, ranges, learned rounding and the drop.
#include <doctest/doctest.h>

#include <cmath>

#include "../../autograd/grad.h"
#include "../../autograd/recorder.h"
#include "../../kernels/reduce.h"
#include "../../quant/ptq/drop.h"
#include "../../quant/ptq/recipes.h"
#include "../../quant/quantizers/affine.h"
#include "../../quant/quantizers/ranges.h"
#include "settings.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace {

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
