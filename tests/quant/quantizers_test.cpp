// What the quantizers' definitions say beyond the common laws and the golden values.
#include <cmath>
#include <set>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../quant/observers.h"
#include "settings.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace {

Array of(const std::vector<float>& values) { return Array::of(values); }
Array signed_sample(uint64_t stream = 1) { return random_normal({4, 50}, Philox(stream), 0.6); }
std::set<double> levels_of(const Array& y) {
  const std::vector<double> values = y.to_vector();
  return {values.begin(), values.end()};
}
void set(Quantizer& quantizer, size_t parameter, double value) {
  Array target = quantizer.own_parameters()[parameter].value();
  target.assign(Array::full(target.shape(), value, target.dtype()));
}

}  // namespace

TEST_CASE("signed activations with 1 bit are -u, u in every quantizer: integers -1 and 1") {
  for (const std::string& name : catalogue) {
    CAPTURE(name);
    const auto q = make_quantizer(name, {.bits = 1});
    const Quantized y = (*q)(signed_sample());
    CHECK(levels_of(y.value.value()).size() == 2);
    if (!q->traits().uniform) continue;
    CHECK(y.grids[0].zero_point == 0.5f);
    CHECK(levels_of(y.integers()) == std::set<double>{-1, 1});
    // Those that are never negative are 0 or u.
    const auto positive = make_quantizer(name, {.bits = 1});
    const Quantized z = (*positive)(random_uniform({4, 50}, Philox(2)));
    CHECK(levels_of(z.integers()) == std::set<double>{0, 1});
  }
}

TEST_CASE("dsq: the arms of an ablation differ in what they learn, not in the grid they start on") {
  const Array x = signed_sample();
  for (const bool weight : {true, false}) {
    const QuantizerOptions options{.bits = 2, .weight = weight, .scale_gradients = false};
    const auto learned = make_quantizer("dsq", options),
               fixed = make_quantizer("dsq:learn_alpha=no", options),
               linear = make_quantizer("dsq:alpha=0.999,learn_alpha=no", options);
    const Tensor leaf = Tensor::leaf(x);
    const Tensor y = (*learned)(leaf).value, z = (*fixed)(leaf).value, w = (*linear)(leaf).value;
    CHECK(same_bits(y.value(), z.value()));
    CHECK(same_bits(y.value(), w.value()));
    CHECK(learned->parameters().size() == fixed->parameters().size() + 1);
    // alpha -> 1 is the straight-through slope to 3e-7.
    const std::vector<double> slope = grad(sum(w), leaf).value().to_vector();
    for (const double d : slope) CHECK((d == 0 || std::abs(d - 1) < 1e-6));
    CHECK(std::abs(grad(sum(z), leaf).value().to_vector()[0] - slope[0]) > 1e-2);
  }
}

TEST_CASE("DSQ P7: raw sums over activations would throw u far out; scaled ones are of its size") {
  const auto gradient_of_u = [](const char* spec) {
    const auto q = make_quantizer(spec, {.bits = 4});
    const Tensor y = (*q)(abs(Tensor(random_normal({8, 32, 32, 16}, Philox(3))))).value;
    return grad(sum(y), q->parameters()[2].tensor).item() / q->parameters()[2].tensor.item();
  };
  CHECK(std::abs(gradient_of_u("dsq:scale=none")) > 100);
  CHECK(std::abs(gradient_of_u("dsq")) < 20);
  CHECK(gradient_of_u("dsq:scale=none") / gradient_of_u("dsq") ==
        doctest::Approx(std::sqrt(32 * 32 * 16 * 15)).epsilon(1e-3));
}

TEST_CASE("dsq_fixed and ste: a batch with NaN moves no range, and watching goes on after a restart") {
  for (const std::string spec : {"dsq_fixed", "ste", "ste:range=minmax", "ste:range=mse"}) {
    CAPTURE(spec);
    const auto q = make_quantizer(spec, {.bits = 4});
    (*q)(signed_sample(1));
    const Grids before = q->to_grid();
    Array broken = signed_sample(2);
    broken.data<float>()[3] = NAN;
    (*q)(broken);
    CHECK(q->to_grid() == before);
    const auto resumed = make_quantizer(spec, {.bits = 4});
    resumed->load_state(q->state());
    const Array wider = random_normal({4, 50}, Philox(3), 2);
    (*q)(wider);
    (*resumed)(wider);
    CHECK(q->to_grid() == resumed->to_grid());
    CHECK(q->to_grid() != before);
  }
}

TEST_CASE("observed ranges are those of the observer") {
  const Array x = signed_sample();
  for (const std::string& range : observer_names()) {
    CAPTURE(range);
    const auto q = make_quantizer("ste:sigmas=2,percentile=99,range=" + range, {.bits = 3});
    (*q)(x);
    const auto observer = make_observer(range, {.bits = 3, .percentile = 99, .sigmas = 2});
    observer->observe(x);
    const ValueRange r = observer->ranges()[0];
    CHECK(q->to_grid()[0].scale == doctest::Approx((r.high - r.low) / 7));
  }
  const auto weights = make_quantizer("dsq_fixed:sigmas=1", {.bits = 2, .weight = true});
  (*weights)(of({1, 2, 1, 2}));
  CHECK(weights->to_grid()[0].scale == doctest::Approx(2.0 * 2 / 3));  // 1.5 + 0.5
}

TEST_CASE("ste: the range of weights is that of the weights of this call, in training and in evaluation") {
  const auto q = make_quantizer("ste:range=mse", {.bits = 3, .weight = true});
  const Array a = signed_sample(1);
  const Array b = (Tensor(signed_sample(2)) * 3).value();
  const auto grids_of = [&](const Array& w, bool training) {
    q->train(training);
    (*q)(w);
    return q->to_grid();
  };
  const Grids of_a = grids_of(a, true), of_b = grids_of(b, true);
  CHECK(of_a != of_b);
  Array changing = a.clone();
  CHECK(grids_of(changing, false) == of_a);
  CHECK(grids_of(changing, false) == of_a);
  CHECK(grids_of(b, true) == of_b);
  CHECK(grids_of(changing, false) == of_a);
  const auto other = make_quantizer("ste:range=mse", {.bits = 3, .weight = true});
  (*other)(b);
  q->load_state(other->state());
  CHECK(grids_of(changing, false) == of_a);
  std::copy_n(b.data<float>(), b.size(), changing.data<float>());
  CHECK(grids_of(changing, false) == of_b);
}

TEST_CASE("lsq_plus: starts, offset and code range") {
  const Array x = random_uniform({20000}, Philox(4), -0.25, 0.75);
  const auto q = make_quantizer("lsq_plus", {.bits = 4});
  q->initialise(x);
  CHECK(q->own_parameters()[0].item() == doctest::Approx(1.0 / 15).epsilon(0.05));
  CHECK(q->own_parameters()[1].item() == doctest::Approx(-0.25).epsilon(0.05));
  CHECK(q->to_grid()[0].zero_point == 4);
  const auto w = make_quantizer("lsq_plus", {.bits = 4, .weight = true});
  w->initialise(of({1, 2, 1, 2}));
  CHECK(w->own_parameters()[0].item() == doctest::Approx((1.5 + 3 * 0.5) / 8));
  CHECK((w->to_grid()[0].lo == -8 && w->to_grid()[0].hi == 7));
  const auto relu = make_quantizer("lsq_plus", {.bits = 4});
  relu->initialise(random_uniform({100}, Philox(5)));
  set(*relu, 1, -0.7);
  relu->project();
  CHECK(relu->own_parameters()[1].item() == 0);
  CHECK(relu->to_grid()[0].zero_point == 0);
}

TEST_CASE("pact: only what is clipped moves alpha, which stays positive and may decay") {
  const auto q = make_quantizer("pact", {.bits = 2});
  q->initialise(of({0, 1, 2, 3}));
  set(*q, 0, 1.5);
  const Tensor x = Tensor::leaf(of({0.2f, 1.4f, 1.6f, 5, 0}));
  const Tensor y = (*q)(x).value;
  const Tensors d = grad({sum(y)}, {x, q->own_parameters()[0]});
  CHECK(d[0].value().to_vector() == std::vector<double>{1, 1, 0, 0, 0});
  CHECK(d[1].item() == 2);
  CHECK(q->traits().decay);
  set(*q, 0, -1);
  CHECK(q->to_grid()[0].scale > 0);
  q->project();
  CHECK(q->own_parameters()[0].item() > 0);

  const auto both = make_quantizer("pact", {.bits = 4});
  both->initialise(of({-3, 3}));
  set(*both, 0, 1);
  const Tensor z = (*both)(of({-2, 0.1f, 2, -3})).value;
  CHECK(grad(sum(z), both->own_parameters()[0]).item() == doctest::Approx(1 - 2));
}

TEST_CASE("pact: SAWB's clip is near the best one for normal weights") {
  const Array w = random_normal({40000}, Philox(6));
  for (const int bits : {2, 3, 4}) {
    const auto sawb = make_quantizer("pact:weights=sawb", {.bits = bits, .weight = true});
    (*sawb)(w);
    const auto observer = make_observer("mse", {.bits = bits, .symmetric = true, .power = 2});
    observer->observe(w);
    CHECK(sawb->to_grid()[0].scale * ((1 << bits) - 1) / 2 ==
          doctest::Approx(observer->ranges()[0].high).epsilon(0.05));
  }
}

TEST_CASE(
    "dorefa: the largest weight is on the last level, whatever its size, and activations end at the clip") {
  for (const double size : {0.01, 1.0, 5.0}) {
    const auto q = make_quantizer("dorefa", {.bits = 3, .weight = true});
    const Tensor y = (*q)(random_normal({300}, Philox(7), size)).value;
    CHECK(max(abs(y)).item() == doctest::Approx(1));
    CHECK(levels_of(y.value()).size() <= 8);
  }
  const auto activations = make_quantizer("dorefa:clip=2", {.bits = 2});
  const Tensor x = Tensor::leaf(of({0.2f, 1.9f, 2.1f, 9}));
  const Tensor y = (*activations)(x).value;
  CHECK(y.value().to_vector() == of({0, 2, 2, 2}).to_vector());
  CHECK(grad(sum(y), x).value().to_vector() == std::vector<double>{1, 1, 0, 0});
}

TEST_CASE("binary: levels, the schedule of IR-Net's slope, and balance") {
  const Array w = Array::of<float>({0.5f, 0.1f, 0.3f, 0.7f, 1, 2, 3, 4}, {2, 4});
  const auto level = [&](const std::string& settings) {
    const auto q = make_quantizer("binary:" + settings, {.bits = 1, .weight = true, .per_channel = true}, 2);
    return q->operator()(w).value.value().to_vector();
  };
  CHECK(level("levels=mean")[0] == doctest::Approx(0.4));
  CHECK(level("levels=mean")[4] == doctest::Approx(2.5));
  CHECK(level("levels=shift")[0] == doctest::Approx(0.5));
  CHECK(level("levels=one")[0] == doctest::Approx(1));
  // Standardised weights of one sign become as many of either.
  const std::vector<double> balanced = level("levels=one,standardise=yes");
  double total = 0;
  for (const double value : balanced) total += value;
  CHECK(total == doctest::Approx(0));

  const auto q = make_quantizer("binary:slope=tanh", {.bits = 1});
  (*q)(signed_sample());
  const auto slope = [&](float x) {
    const Tensor leaf = Tensor::leaf(of({x, -1}));
    return grad(sum((*q)(leaf).value), leaf).value().to_vector()[0];
  };
  CHECK(slope(0) == doctest::Approx(1));
  CHECK(slope(1) > 0.98);
  q->set_progress(0.5);  // t = 1
  CHECK(slope(0) == doctest::Approx(1));
  CHECK(slope(1) == doctest::Approx(1 - std::tanh(1.0) * std::tanh(1.0)).epsilon(1e-5));
  q->set_progress(1);  // t = 10
  CHECK(slope(0) == doctest::Approx(10));
  CHECK(slope(1) < 1e-6);
}

TEST_CASE("binary and ternary with other bits are dsq_fixed and ste") {
  const Array x = signed_sample();
  const auto same = [&](const char* spec, const char* other, const QuantizerOptions& options) {
    return same_bits((*make_quantizer(spec, options))(x).value.value(),
                     (*make_quantizer(other, options))(x).value.value());
  };
  for (const bool weight : {true, false}) {
    CHECK(same("binary", "dsq_fixed", {.bits = 8, .weight = weight}));
    CHECK(same("ternary", "ste", {.bits = 8, .weight = weight}));
  }
  CHECK(same("ternary", "ste", {.bits = 2}));
  CHECK(!same("ternary", "ste", {.bits = 2, .weight = true}));
}

TEST_CASE("ternary: the threshold decides, and the level is the mean of who passed it") {
  const auto q = make_quantizer("ternary", {.bits = 2, .weight = true});
  const Quantized y = (*q)(of({1, -1, 0.5f, -0.1f, 0.1f, 2}));  // mean 0.7833, threshold 0.5483
  const double a = (1 + 1 + 2) / 3.0;
  const std::vector<double> expected = {a, -a, 0, 0, 0, a};
  for (size_t i = 0; i < expected.size(); ++i)
    CHECK(y.value.value().to_vector()[i] == doctest::Approx(expected[i]));
  CHECK(levels_of(y.integers()) == std::set<double>{-1, 0, 1});
}

TEST_CASE("apot: levels are sums of powers of two, denser near zero, and no integer grid") {
  // 4 bits: two terms of four values each (the paper's figure 2), 5 bits: one more of two.
  const auto levels = [](int bits) {
    const auto q = make_quantizer("apot", {.bits = bits});
    q->initialise(of({0, 1}));
    set(*q, 0, 1);
    Array ramp(Shape{20001});
    for (int64_t i = 0; i < ramp.size(); ++i) ramp.data<float>()[i] = static_cast<float>(i) / 20000;
    return levels_of((*q)(ramp).value.value());
  };
  std::set<double> four;
  for (const double a : {0.0, 1.0, 0.25, 0.0625})
    for (const double b : {0.0, 0.5, 0.125, 0.03125})
      four.insert(static_cast<double>(static_cast<float>((a + b) / 1.5)));
  CHECK(levels(4) == four);
  CHECK(levels(4).size() == 16);
  CHECK(levels(5).size() == 32);
  CHECK(levels(2) == levels_of(of({0, 0.25f, 0.5f, 1})));

  const auto q = make_quantizer("apot", {.bits = 4, .weight = true});
  const Quantized y = (*q)(signed_sample());
  CHECK(!y.on_grid());
  CHECK(levels_of(y.value.value()).size() <= 15);
  CHECK(!q->traits().deployable);
  CHECK_THROWS_AS(y.integers(), argument_error);
  // On its own levels nothing changes.
  const auto activations = make_quantizer("apot", {.bits = 4});
  const Array z = (*activations)(random_uniform({500}, Philox(8))).value.value();
  CHECK(same_bits((*activations)(z).value.value(), z));
  CHECK((*activations)(of({NAN})).value.item() == 0);
}
