// LSQ and the straight-through quantizer: what their definitions say beyond the common laws.
#include <cmath>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../kernels/simd/simd.h"
#include "../../quant/quantizers/backward.h"
#include "settings.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace {

Array of(const std::vector<float>& values) { return Array::of(values); }

}  // namespace

TEST_CASE("LSQ: codes, initial step and gradient of the step, by hand") {
  const auto q = make_quantizer("lsq", {.bits = 2, .weight = true, .scale_gradients = false});
  const Tensor x = Tensor::leaf(of({0.3f, -0.3f, 5.0f, -5.0f, 0.1f}));
  const Quantized y = (*q)(x);
  const double step = 2 * (0.3 + 0.3 + 5 + 5 + 0.1) / 5;  // Q_P = 1
  CHECK(q->own_parameters()[0].item() == doctest::Approx(step));
  CHECK(y.grids[0].lo == -2);
  CHECK(y.grids[0].hi == 1);
  Array target = q->own_parameters()[0].value();
  target.assign(Array::full({1}, 0.5));
  const Tensor z = (*q)(x).value;
  CHECK(z.value().to_vector() == of({0.5f, -0.5f, 0.5f, -1.0f, 0}).to_vector());
  const Tensor end = Tensor::leaf(of({0.5f, -1.0f}));  // on the last levels, where eq. 5 passes nothing
  CHECK(grad(sum((*q)(end).value), end).value().to_vector() == std::vector<double>{0, 0});
  const Tensors d = grad({sum(z)}, {x, q->own_parameters()[0]});
  CHECK(d[0].value().to_vector() == std::vector<double>{1, 1, 0, 0, 1});
  CHECK(d[1].item() == doctest::Approx((1 - 0.6) + (-1 + 0.6) + 1 - 2 + (0 - 0.2)));
}

TEST_CASE("LSQ: code ranges of the paper") {
  const auto grid_for = [](int bits, bool weight, float low) {
    const auto q = make_quantizer("lsq", {.bits = bits, .weight = weight});
    q->initialise(of({low, 1}));
    return q->to_grid()[0];
  };
  CHECK((grid_for(4, true, -1).lo == -8 && grid_for(4, true, -1).hi == 7));
  CHECK((grid_for(8, true, -1).lo == -127 && grid_for(8, true, -1).hi == 127));
  CHECK((grid_for(1, true, -1).lo == 0 && grid_for(1, true, -1).zero_point == 0.5f));
  CHECK((grid_for(4, false, 0).zero_point == 0 && grid_for(4, false, 0).hi == 15));
  CHECK((grid_for(4, false, -1).zero_point == 8 && grid_for(4, false, -1).hi == 15));
}

TEST_CASE("LSQ: starts where the setting says") {
  const auto first_step = [](const std::string& setting, bool weight, const Array& x) {
    const auto q = make_quantizer("lsq" + setting, {.bits = 2, .weight = weight});
    q->initialise(x);
    return q->own_parameters()[0].item();
  };
  const Array sparse = of({0, 0, 0, 0, 0, 0, 0, 3});
  CHECK(first_step("", false, sparse) == doctest::Approx(2 * 3.0 / 8 / std::sqrt(3)));
  CHECK(first_step(":init=mean", false, sparse) == first_step("", false, sparse));
  CHECK(first_step(":init=extremes", false, sparse) == doctest::Approx(1));
  CHECK(first_step(":init=mse", false, sparse) == doctest::Approx(1).epsilon(0.01));
  CHECK(first_step(":init=extremes", true, of({-3, 0, 1, 2})) == doctest::Approx(2));
}

TEST_CASE("LSQ: the step stays positive") {
  const auto q = make_quantizer("lsq", {.bits = 4, .weight = true});
  q->initialise(random_normal({100}, Philox(1)));
  const double first = q->own_parameters()[0].item();
  Array step = q->own_parameters()[0].value();
  step.assign(Array::full({1}, -3));
  CHECK(q->to_grid()[0].scale > 0);
  q->project();
  CHECK(q->own_parameters()[0].item() == doctest::Approx(1e-3 * first));
}

TEST_CASE("STE: the range of weights follows them, that of activations is averaged in training only") {
  const auto weights = make_quantizer("ste", {.bits = 8, .weight = true});
  (*weights)(of({0.5f, -2.54f}));
  CHECK(weights->to_grid()[0].scale == doctest::Approx(0.02));
  weights->eval();
  (*weights)(of({1.27f, 1}));
  CHECK(weights->to_grid()[0].scale == doctest::Approx(0.01));

  const auto activations = make_quantizer("ste", {.bits = 8});
  (*activations)(of({0, 2.55f}));
  CHECK(activations->to_grid()[0].scale ==
        doctest::Approx(0.01));  // no bias towards the zero it started from
  (*activations)(of({0, 5.1f}));
  const double mean = (0.1 * 0.9 * 2.55 + 0.1 * 5.1) / (1 - 0.81);
  CHECK(activations->to_grid()[0].scale == doctest::Approx(mean / 255));
  activations->eval();
  (*activations)(of({0, 100}));
  CHECK(activations->to_grid()[0].scale == doctest::Approx(mean / 255));
}

TEST_CASE("STE: gradients pass where a value is rounded, and stop where it saturates") {
  const auto q = make_quantizer("ste", {.bits = 2});
  (*q)(of({0, 3}));
  q->eval();
  const Tensor x = Tensor::leaf(of({-0.6f, -0.4f, 1.2f, 3.0f, 3.4f, 3.6f, NAN}));
  const Tensor y = (*q)(x).value;
  CHECK(y.value().to_vector() == std::vector<double>{0, 0, 1, 3, 3, 3, 0});
  CHECK(grad(sum(y), x).value().to_vector() == std::vector<double>{0, 1, 1, 1, 1, 0, 0});
}

TEST_CASE("the loops of LSQ and STE give the same bits on every instruction set") {
  const simd::Isa all[] = {simd::Isa::baseline, simd::Isa::avx2, simd::Isa::avx512};
  const simd::Table* before = &simd::table();
  for (const int64_t size : {1, 3, 15, 16, 17, 500, 513, 40000}) {
    const Array x = random_normal({size}, Philox(9), 0.6), gradient = random_normal({size}, Philox(10));
    const Grid g{0.1f, 8, 0, 15};
    Arrays first;
    for (const simd::Isa isa : all) {
      if (!simd::table_of(isa)) continue;
      simd::use_isa(isa);
      const RoundedSums sums = rounded_sums(gradient, x, Array::full({1}, 0.1), g);
      const Arrays found = {sums.x, sums.rounding, sums.below, sums.above,
                            pass_within(gradient, x, {{-0.8, 0.7}})};
      if (first.empty()) first = found;
      for (size_t i = 0; i < found.size(); ++i) CHECK(same_bits(found[i], first[i]));
    }
    const RoundedSums exact =
        rounded_sums(cast(gradient, DType::f64), cast(x, DType::f64), Array::full({1}, 0.1, DType::f64), g);
    const double slack = 1e-6 * static_cast<double>(size);
    CHECK(std::abs(first[1].item() - exact.rounding.item()) < slack);
    CHECK(std::abs(first[2].item() - exact.below.item()) < slack);
    CHECK(std::abs(first[3].item() - exact.above.item()) < slack);
  }
  for (const simd::Isa isa : all)
    if (simd::table_of(isa) == before) simd::use_isa(isa);
}
