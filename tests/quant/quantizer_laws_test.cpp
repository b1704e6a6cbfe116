// Laws that hold for every quantizer of the catalogue.
#include <algorithm>
#include <cmath>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../autograd/recorder.h"
#include "../../kernels/threads.h"
#include "settings.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace {

const Grid& grid_of(const Grids& grids, int64_t i, int64_t size) {
  return grids[static_cast<size_t>(i * static_cast<int64_t>(grids.size()) / size)];
}

// {x, parameters...} in f64, with x off levels and thresholds, where derivatives jump.
Tensors arguments(Quantizer& quantizer, const Setting& setting, const Shape& shape) {
  quantizer.initialise(setting.sample());
  quantizer.to(DType::f64);
  Array x = setting.sample(shape, 3, DType::f64);
  const Grids grids = quantizer.to_grid();
  for (int64_t i = 0; i < x.size(); ++i) {
    double& value = x.data<double>()[i];
    if (value == 0) value = 0.123 + 0.01 * static_cast<double>(i);
    if (grids.empty()) continue;
    const Grid& g = grid_of(grids, i, x.size());
    const double halves = 2 * (value / g.scale + g.zero_point);
    if (std::abs(halves - std::round(halves)) < 0.05) value += 0.1 * g.scale;
  }
  Tensors in = {x};
  for (const Tensor& parameter : quantizer.own_parameters()) in.push_back(parameter.value().clone());
  return in;
}
Arrays values(const Tensors& tensors) {
  Arrays all;
  for (const Tensor& t : tensors) all.push_back(t.value().clone());
  return all;
}

}  // namespace

TEST_CASE("every value is that of kernels/grid.h") {
  for_each_setting([](const Setting& setting) {
    const auto quantizer = setting.make();
    const Quantized q = (*quantizer)(setting.sample());
    CHECK(q.grids == quantizer->to_grid());
    CHECK(q.on_grid() == quantizer->traits().uniform);
    if (!q.on_grid()) return;
    CHECK(q.grids.size() == (setting.options.per_channel ? 4u : 1u));
    const Array x = quantizer->transform(setting.sample()).value();
    Array expected(x.shape());
    for (int64_t i = 0; i < x.size(); ++i) {
      const Grid& g = grid_of(q.grids, i, x.size());
      expected.data<float>()[i] = grid::decode(grid::encode(x.data<float>()[i], g), g);
    }
    CHECK(same_bits(q.value.value(), expected));
    CHECK(same_bits(fake_quantize(expected, q.grids), expected));
  });
}

TEST_CASE("quantizing again changes nothing, unless the range follows the data") {
  for_each_setting([](const Setting& setting) {
    const auto quantizer = setting.make();
    (*quantizer)(setting.sample());
    if (quantizer->traits().follows) return;
    quantizer->eval();
    const Array once = (*quantizer)(setting.sample({4, 6, 5}, 1)).value.value();
    CHECK(same_bits((*quantizer)(once).value.value(), once));
  });
}

TEST_CASE(
    "grids: 2^b codes at most, a positive finite scale, zero a level of activations but for signed 1 bit") {
  for_each_setting([](const Setting& setting) {
    const auto quantizer = setting.make();
    (*quantizer)(setting.sample());
    for (const Grid& g : quantizer->to_grid()) {
      CHECK(g.hi - g.lo < 1 << setting.options.bits);
      CHECK(g.hi > g.lo);
      CHECK((g.scale > 0 && std::isfinite(grid::inverse(g.scale))));
      if (setting.options.weight) continue;
      CHECK(g.lo == 0);
      if (setting.options.bits == 1 && setting.data == Data::signed_activations) {
        const auto [low, high] = std::pair(grid::decode(0, g), grid::decode(1, g));
        CHECK((low == -high && high > 0));  // integers -1 and 1
      } else {
        CHECK(grid::decode(grid::encode(0, g), g) == 0);
      }
    }
  });
}

TEST_CASE("monotone in every slice") {
  for_each_setting([](const Setting& setting) {
    const auto quantizer = setting.make();
    (*quantizer)(setting.sample());
    quantizer->eval();
    constexpr int64_t count = 1001;
    Array ramps(Shape{4, count});
    for (int64_t i = 0; i < ramps.size(); ++i)
      ramps.data<float>()[i] = static_cast<float>(i % count - count / 2) * 0.008f;
    const Array y = (*quantizer)(ramps).value.value();
    for (const float* row = y.data<float>(); row < y.data<float>() + y.size(); row += count) {
      CHECK(std::is_sorted(row, row + count));
      CHECK(row[0] < row[count - 1]);
    }
  });
}

TEST_CASE("per channel: each slice is quantized as if it were alone") {
  for_each_setting([](const Setting& setting) {
    if (!setting.options.per_channel) return;
    const Array x = setting.sample();
    const Array y = (*setting.make())(x).value.value();
    QuantizerOptions alone = setting.options;
    alone.per_channel = false;
    for (int64_t c = 0; c < 4; ++c) {
      const auto quantizer = make_quantizer(setting.name, alone);
      CHECK(same_bits((*quantizer)(x.slice(c, 1)).value.value().clone(), y.slice(c, 1).clone()));
    }
  });
}

TEST_CASE("state round trip, and a loaded quantizer does not look at the data") {
  for_each_setting([](const Setting& setting) {
    const auto quantizer = setting.make();
    (*quantizer)(setting.sample());
    quantizer->eval();
    const Array x = setting.sample({4, 6}, 1);
    const auto loaded = setting.make();
    loaded->eval();
    CHECK(!loaded->initialised());
    loaded->load_state(quantizer->state());
    CHECK(loaded->initialised());
    CHECK(same_bits((*loaded)(x).value.value(), (*quantizer)(x).value.value()));
  });
}

TEST_CASE("learn = false leaves nothing to learn") {
  for_each_setting([](const Setting& setting) {
    Setting fixed = setting;
    fixed.options.learn = false;
    const auto quantizer = fixed.make();
    const Tensor x = Tensor::leaf(setting.sample());
    const Tensor y = (*quantizer)(x).value;
    CHECK(quantizer->parameters().empty());
    CHECK(same_bits(y.value(), (*setting.make())(x).value.value()));
    CHECK(grad(sum(y), x).shape() == x.shape());
    CHECK(setting.make()->parameters().empty() == !setting.make()->traits().learned);
  });
}

TEST_CASE("zeros, constants and a single element give finite grids, values and gradients") {
  for_each_setting([](const Setting& setting) {
    for (const double value : {0.0, 0.3, 1e-30, 1e30}) {
      for (const Shape& shape : {Shape{4, 3}, Shape{4, 1}}) {
        const auto quantizer = setting.make();
        const Tensor x = Tensor::leaf(Array::full(shape, value));
        const Tensor y = (*quantizer)(x).value;
        CHECK(all_finite(y.value()));
        Tensors inputs = {x};
        for (const nn::NamedTensor& p : quantizer->parameters()) inputs.push_back(p.tensor);
        for (const Tensor& g : grad({sum(y)}, inputs)) CHECK(all_finite(g.value()));
        if (value == 0 && quantizer->traits().scales)
          for (const double level : y.value().to_vector()) CHECK(std::abs(level) <= 1e-6);
        quantizer->project();
        CHECK(all_finite((*quantizer)(x).value.value()));
      }
    }
  });
}

TEST_CASE("NaN goes to the lowest level, infinities to the ends, and no parameter gets a NaN") {
  for_each_setting([](const Setting& setting) {
    const auto quantizer = setting.make();
    (*quantizer)(setting.sample());
    quantizer->eval();
    // A figure of all weights takes part in what is put on the grid.
    const bool spoilt = setting.name.ends_with("standardise=yes") ||
                        ((setting.name == "dorefa" || setting.name == "pact") && setting.options.bits > 1);
    if (!quantizer->traits().uniform || (spoilt && setting.options.weight)) return;
    Array x = setting.sample({4, 64}, 2);
    x.data<float>()[0] = NAN;
    x.data<float>()[1] = HUGE_VALF;
    x.data<float>()[2] = -HUGE_VALF;
    const Tensor leaf = Tensor::leaf(x);
    const Quantized q = (*quantizer)(leaf);
    const Grid& g = q.grids[0];
    const float* y = q.value.value().data<float>();
    CHECK(y[0] == grid::decode(g.lo, g));
    CHECK(y[1] == grid::decode(g.hi, g));
    CHECK(y[2] == grid::decode(g.lo, g));
    Tensors inputs = {leaf};
    for (const nn::NamedTensor& p : quantizer->parameters()) inputs.push_back(p.tensor);
    for (const Tensor& gradient : grad({sum(q.value)}, inputs)) CHECK(all_finite(gradient.value()));
    // The other values and the grid are nearly what they were without.
    for (int i = 0; i < 3; ++i) x.data<float>()[i] = x.data<float>()[3 + i];
    const Quantized clean = (*quantizer)(x);
    const float ratio = g.scale / clean.grids[0].scale;
    CHECK((ratio > 0.5f && ratio < 2));
    CHECK(all_finite(q.value.value()));
  });
}

TEST_CASE("no range is chosen from NaN, infinity or nothing") {
  for_each_setting([](const Setting& setting) {
    Array x = setting.sample();
    x.data<float>()[7] = NAN;
    CHECK_THROWS_AS((*setting.make())(x), numeric_error);
    x.data<float>()[7] = HUGE_VALF;
    CHECK_THROWS_AS((*setting.make())(x), numeric_error);
    CHECK_THROWS_AS((*setting.make())(Array(Shape{4, 0})), argument_error);
  });
}

TEST_CASE("the backward is the derivative of the surrogate, in x and in every parameter (f64)") {
  for_each_setting([](const Setting& setting) {
    Setting exact = setting;
    exact.options.scale_gradients = false;
    const auto quantizer = exact.make();
    const Tensors in = arguments(*quantizer, setting, {4, 3, 3});
    const Arrays at = values(in);
    // The quantizer backwards, its surrogate forwards: leaves come with grad(), constants with differences.
    const TensorFunction both = [&](const Tensors& t) {
      return t[0].requires_grad() ? quantizer->apply(t) : quantizer->surrogate(t, at);
    };
    const GradcheckResult result = gradcheck(both, in, 1, 1e-6);
    INFO(result.worst);
    CHECK(result.error < 1e-6);
    if (setting.name.find("direct=soft") != std::string::npos) return;  // its surrogate is the soft function
    CHECK(difference(quantizer->surrogate(in, at).value(), quantizer->apply(in).value()) < 1e-6);
  });
}

TEST_CASE("the gradient's gradient (f64)") {
  for_each_setting(
      [](const Setting& setting) {
        // Snapping the zero point passes gradients straight through; its second derivative is not its
        // differences'.
        if (setting.data == Data::signed_activations) return;
        const auto quantizer = setting.make();
        const Tensors in = arguments(*quantizer, setting, {4, 3});
        const GradcheckResult result =
            gradcheck([&](const Tensors& t) { return quantizer->apply(t); }, in, 2, 1e-7);
        INFO(result.worst);
        CHECK(result.error < 1e-5);
      },
      {1, 2, 4, 8});
}

TEST_CASE("gradients of parameters are scaled by 1 / sqrt(n levels)") {
  // Levels that LSQ's rule counts: those above zero; intervals for quantizers with a range.
  const auto levels = [](const Setting& setting, const Grids& grids) {
    if (setting.name == "apot")
      return (1 << (setting.options.bits - (setting.data != Data::activations && setting.options.bits > 1))) -
             1;
    const Grid& g = grids[0];
    return setting.name.starts_with("lsq") ? std::max(1, g.hi - static_cast<int>(g.zero_point)) : g.hi - g.lo;
  };
  for_each_setting(
      [&](const Setting& setting) {
        if (setting.make()->parameters().empty() || setting.name.find(':') != std::string::npos) return;
        const Tensor x = setting.sample({4, 6, 7});
        const auto gradients = [&](const std::string& scale) {
          const auto quantizer = make_quantizer(setting.name + ":scale=" + scale, setting.options, 4);
          const Tensor y = (*quantizer)(x).value;
          Tensors inputs;
          for (const nn::NamedTensor& p : quantizer->parameters()) inputs.push_back(p.tensor);
          return grad({sum(y * y)}, inputs);
        };
        const auto quantizer = setting.make();
        (*quantizer)(x);
        const int count = levels(setting, quantizer->to_grid());
        const Tensors none = gradients("none"), image = gradients("image"), batch = gradients("batch");
        const bool whole = setting.options.weight && !setting.options.per_channel;
        const double n = whole ? 4 * 6 * 7 : 6 * 7, all = setting.options.weight ? n : 4 * 6 * 7;
        for (size_t i = 0; i < none.size(); ++i) {
          CHECK(difference(image[i].value(), (none[i] * (1 / std::sqrt(n * count))).value()) < 1e-6);
          CHECK(difference(batch[i].value(), (none[i] * (1 / std::sqrt(all * count))).value()) < 1e-6);
        }
        // Papers that do not scale are not scaled.
        const bool unscaled = setting.name == "pact" || setting.name == "apot" || setting.name == "affine";
        const auto plain = setting.make();
        const Tensor y = (*plain)(x).value;
        const Tensor d = grad(sum(y * y), plain->parameters()[0].tensor);
        CHECK(same_bits(d.value(), (unscaled ? none : image)[0].value()));
      },
      {1, 2, 4, 8});
}

TEST_CASE("the number of threads changes no bit") {
  const int before = threads();
  for_each_setting(
      [](const Setting& setting) {
        const Array x = setting.sample({4, 50, 60, 7}, 5);
        const auto run = [&](int count) {
          set_threads(count);
          const auto quantizer = setting.make();
          const Tensor leaf = Tensor::leaf(x);
          const Tensor y = (*quantizer)(leaf).value;
          Tensors inputs = {leaf};
          for (const nn::NamedTensor& p : quantizer->parameters()) inputs.push_back(p.tensor);
          Arrays all = {y.value()};
          for (const Tensor& g : grad({sum(y * y)}, inputs)) all.push_back(g.value());
          return all;
        };
        const Arrays one = run(1), two = run(2);
        for (size_t i = 0; i < one.size(); ++i) CHECK(same_bits(one[i], two[i]));
      },
      {2, 8});
  set_threads(before);
}

TEST_CASE("weights in bf16 are converted, f64 works on an f64 quantizer") {
  for_each_setting(
      [](const Setting& setting) {
        const Array x = cast(setting.sample(), DType::bf16);
        const auto quantizer = setting.make();
        const Tensor leaf = Tensor::leaf(x);
        const Tensor y = (*quantizer)(leaf).value;
        const Array wide = (*setting.make())(cast(x, DType::f32)).value.value();
        CHECK(y.dtype() == (setting.options.weight ? DType::f32 : DType::bf16));
        CHECK(same_bits(y.value(), cast(wide, y.dtype())));
        CHECK(grad(sum(y), leaf).dtype() == DType::bf16);
        quantizer->eval();
        quantizer->to(DType::f64);
        CHECK(difference((*quantizer)(cast(x, DType::f64)).value.value(), wide) < 1e-6);
      },
      {4});
}

TEST_CASE("wrong options are refused in a sentence") {
  for (const std::string& name : catalogue)
    for (const int bits : {-1, 0, 9, 33})
      CHECK_THROWS_WITH_AS(make_quantizer(name, {.bits = bits}),
                           text("[quantizer] got ", bits,
                                " bits, expected 1 .. 8; leave the tensor unquantized (32 in "
                                "a policy) if it shall stay in floats")
                               .c_str(),
                           argument_error);
  CHECK_THROWS_AS(make_quantizer("dsq", {.per_channel = true}, 4), argument_error);
  CHECK_THROWS_AS(make_quantizer("dsq", {.weight = true, .per_channel = true}, 0), argument_error);
  const auto quantizer = make_quantizer("dsq", {.weight = true, .per_channel = true}, 4);
  CHECK_THROWS_AS((*quantizer)(Array::zeros({3, 2})), argument_error);
  CHECK_THROWS_WITH_AS(
      make_quantizer("dqs", {}),
      doctest::Contains(
          "got the name \"dqs\", did you mean \"dsq\"? Expected one of: affine, apot, binary, dorefa, dsq,"),
      argument_error);
}

namespace {

// A quantizer as a user would write one: an integer grid with a learned scale, straight-through in x.
class Plain final : public Quantizer {
 public:
  using Quantizer::Quantizer;
  Plain(const QuantizerOptions& options) : Quantizer(options) { declare("scale"); }
  Grids grids(const Arrays& parameters) const override {
    return {{static_cast<float>(parameters[0].item()), 0, -8, 7}};
  }
  Tensor surrogate(const Tensors& in, const Arrays& at) const override {
    const Tensor p = Tensor(at[0]) / Tensor(at[1]);
    return in[0] + in[1] * (clamp(round(p), -8, 7) - p);
  }

 private:
  void choose(const Array&) override { set_values(0, {0.1}); }
};

}  // namespace

TEST_CASE("a user's quantizer needs parameters, a grid and a surrogate") {
  register_quantizer("plain",
                     {[](const QuantizerOptions& o, int64_t) { return std::make_shared<Plain>(o); }});
  const auto quantizer = make_quantizer("plain", {.scale_gradients = false});
  const Tensor x = Tensor::leaf(Array::of<float>({0.24f, -0.13f, 5.0f}));
  const Tensor y = (*quantizer)(x).value;
  CHECK(y.value().to_vector() == Array::of<float>({2 * 0.1f, -1 * 0.1f, 7 * 0.1f}).to_vector());
  const Tensors g = grad({sum(y)}, {x, quantizer->parameters()[0].tensor});
  CHECK(g[0].value().to_vector() == std::vector<double>{1, 1, 1});
  CHECK(g[1].item() == doctest::Approx((2 - 2.4) + (-1 + 1.3) + (7 - 50)));
  // Weights: three on a grid of 15 intervals.
  const auto scaled = make_quantizer("plain", {.weight = true});
  const Tensor z = (*scaled)(x).value;
  CHECK(grad(sum(z), scaled->parameters()[0].tensor).item() ==
        doctest::Approx(g[1].item() / std::sqrt(3 * 15)));
}

TEST_CASE("activations in bf16: the codes of their values, and the gradients of f32 rounded") {
  for_each_setting([](const Setting& setting) {
    const auto quantizer = setting.make();
    if (setting.options.weight || !quantizer->traits().uniform) return;
    const Array x = setting.sample({4, 7, 3, 5}, 0, DType::bf16), wide = cast(x, DType::f32);
    (*quantizer)(wide);
    quantizer->eval();
    const Array weight = setting.sample(x.shape(), 4, DType::bf16);

    // Value and gradients of sum(y * weight), and the integers of y.
    struct Run {
      Array value, integers;
      Arrays gradients;
    };
    const auto run = [&](const Array& data) {
      const Tensor leaf = Tensor::leaf(data.clone());
      const Quantized q = (*quantizer)(leaf);
      Tensors inputs = {leaf};
      for (const nn::NamedTensor& p : quantizer->parameters()) inputs.push_back(p.tensor);
      Run result{q.value.value(), q.integers(), {}};
      const Tensors gradients =
          grad({q.value}, inputs, {.grad_outputs = {Tensor(cast(weight, data.dtype()))}});
      for (const Tensor& g : gradients) result.gradients.push_back(g.value());
      return result;
    };
    const Run expected = run(wide), values = run(x);
    quantizer->give_codes(true);
    const Run codes = run(x);
    CHECK(same_bits(values.value, cast(expected.value, DType::bf16)));
    CHECK(same_bits(codes.value, cast(expected.integers, DType::bf16)));
    CHECK(same_bits(cast(codes.integers, DType::f32), expected.integers));
    for (size_t i = 0; i < expected.gradients.size(); ++i) {
      INFO("gradient ", i);
      const Array rounded = cast(expected.gradients[i], values.gradients[i].dtype());
      CHECK(difference(cast(values.gradients[i], DType::f64), cast(rounded, DType::f64)) < 1e-5);
      CHECK(same_bits(codes.gradients[i], values.gradients[i]));
    }
  });
}
