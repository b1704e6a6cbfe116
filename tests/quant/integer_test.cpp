// Lowering, the integer runtime, its oracle and its file.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "../../autograd/ops.h"
#include "../../autograd/recorder.h"
#include "../../data/formats/file.h"
#include "../../kernels/threads.h"
#include "../../nn/model.h"
#include "../../quant/integer/model_file.h"
#include "../../quant/integer/reference.h"
#include "../../quant/integer/session.h"
#include "../../quant/lower.h"
#include "../../quant/sites.h"

using namespace stairgrad;
using namespace stairgrad::quant;
namespace integer = stairgrad::quant::integer;

namespace {

Array images_of(const Shape& shape, uint64_t stream = 1) { return random_normal(shape, Philox(5, stream)); }

// A network as after a training: batch norm with statistics and scales of its own, some channels dead.
std::unique_ptr<nn::Model> network(const std::string& name, int64_t size = 12, int64_t channels = 3) {
  auto model = nn::make_model(name, {.in_channels = channels, .image_size = size, .classes = 10, .width = 0.5});
  nn::initialise(*model, 3);
  uint64_t stream = 0;
  for (auto& [key, array] : model->state()) {
    Array values = array;
    const Philox rng(9, ++stream);
    for (int64_t i = 0; i < values.size(); ++i) {
      float& v = values.data<float>()[i];
      const double u = rng.uniform(static_cast<uint64_t>(i));
      if (key.ends_with("running_mean")) v = static_cast<float>(u - 0.5);
      if (key.ends_with("running_var")) v = static_cast<float>(0.5 + u);
      const bool batch_norm = key.find("bn") != std::string::npos || key.find("downsample.1") != std::string::npos;
      if (batch_norm && key.ends_with(".weight")) v = static_cast<float>(i % 7 == 3 ? 0 : (i % 5 == 2 ? -1 : 1) * (0.5 + u));
      if (batch_norm && key.ends_with(".bias")) v = static_cast<float>(0.6 * (u - 0.4));
    }
  }
  model->eval();
  return model;
}

struct Case {
  std::string model, quantizer;
  int w_bits, a_bits;
  Skip skip;
  Ends ends;
  std::string granularity = "layer";
};

struct Quantized4 {
  std::unique_ptr<nn::Model> model;
  std::unique_ptr<Sites> sites;
  integer::Model lowered;
};

Quantized4 quantized(const Case& c, int64_t size = 12) {
  Quantized4 q{network(c.model, size), nullptr, {}};
  q.sites = std::make_unique<Sites>(
      *q.model, uniform_policy(*q.model, {c.w_bits, c.a_bits, c.quantizer, c.granularity}, c.skip, c.ends));
  q.sites->calibrate(images_of(q.model->input_shape(16)));
  q.sites->eval();
  q.lowered = lower(trace([&](const Tensors& in) { return (*q.model)(in[0]); }, {Array::zeros(q.model->input_shape())}));
  return q;
}

bool same_bytes(const Array& a, const Array& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

const std::vector<Case> cases = {
    {"resnet8", "dsq", 4, 4, Skip::u8, Ends::eight},     {"resnet8", "dsq", 2, 3, Skip::shared, Ends::same},
    {"resnet8b", "dsq", 8, 8, Skip::u8, Ends::same},     {"resnet8b", "lsq", 4, 4, Skip::shared, Ends::eight},
    {"resnet14", "lsq", 3, 2, Skip::u8, Ends::eight},    {"resnet8", "ste", 5, 6, Skip::u8, Ends::same},
    {"resnet8", "lsq", 1, 1, Skip::u8, Ends::eight},     {"resnet8", "dsq", 4, 8, Skip::u8, Ends::eight, "channel"},
    {"resnet20", "dsq", 7, 7, Skip::shared, Ends::same}, {"resnet8", "dsq", 1, 2, Skip::u8, Ends::same},
};

}  // namespace

TEST_CASE("every code of the integer run equals the quantized evaluation, at any batch size and thread count") {
  for (const Case& c : cases) {
    CAPTURE(c.model);
    CAPTURE(c.quantizer);
    CAPTURE(c.w_bits);
    const Quantized4 q = quantized(c);
    const Array images = images_of(q.model->input_shape(5), 2);
    const Arrays expected = integer::evaluate(q.lowered, images);
    integer::Session all(q.lowered, 5, /*keep_values=*/true);
    const Array logits = all.run(images).clone();
    for (size_t v = 0; v < q.lowered.values.size(); ++v) {
      CAPTURE(q.lowered.values[v].name);
      CHECK(same_bytes(all.value(static_cast<int>(v)), expected[v]));
    }
    integer::Session planned(q.lowered, 5);  // buffers reused, skips overwritten
    CHECK(same_bytes(planned.run(images), logits));
    CHECK(same_bytes(planned.run(images), logits));
    integer::Session single(q.lowered, 1);
    for (int64_t i = 0; i < 5; ++i) CHECK(same_bytes(single.run(images.slice(i, 1)), logits.slice(i, 1)));
    const int before = threads();
    set_threads(before == 1 ? 2 : 1);
    integer::Session other(q.lowered, 5);
    CHECK(same_bytes(other.run(images), logits));
    set_threads(before);
  }
}

TEST_CASE("the integer run is what fake quantization in floats says, but for roundings at the border of two codes") {
  for (const Case& c : cases) {
    CAPTURE(c.model);
    CAPTURE(c.quantizer);
    CAPTURE(c.a_bits);
    const Quantized4 q = quantized(c);
    const Array images = images_of(q.model->input_shape(8), 3);
    std::map<std::string, Array> sites;
    for (const nn::NamedTap& t : q.model->taps())
      if (t.tap->role != nn::Tap::Role::weight && t.tap->hook)
        t.tap->hook = [&sites, name = t.name, hook = t.tap->hook](const Tensor& x) {
          const Quantized out = hook(x);
          sites[name] = out.integers();
          return out;
        };
    const NoGrad no_grad;
    const Tensor logits = (*q.model)(images);
    const Arrays values = integer::evaluate(q.lowered, images);
    int64_t total = 0, off = 0;
    for (size_t v = 0; v < values.size(); ++v) {
      const integer::Value& info = q.lowered.values[v];
      const auto site = sites.find(info.name);
      if (!info.codes || site == sites.end()) continue;
      total += values[v].size();
      for (int64_t i = 0; i < values[v].size(); ++i) {
        const float code = static_cast<float>(values[v].data<uint8_t>()[i]) - info.grid.zero_point;
        off += code != site->second.data<float>()[i];
      }
    }
    CHECK(total > 1000);
    CHECK(static_cast<double>(off) < 0.02 * static_cast<double>(total));
    CHECK(sites.size() > 8);
  }
}

TEST_CASE("graphs of a user's own ops are lowered: bias, clamps, max pool, residual add") {
  const auto w8 = make_quantizer("lsq", {.bits = 8, .weight = true});
  const auto w4 = make_quantizer("dsq", {.bits = 4, .weight = true});
  std::vector<std::shared_ptr<Quantizer>> a;
  for (int i = 0; i < 4; ++i) a.push_back(make_quantizer("lsq", {.bits = i == 1 ? 4 : 8}));
  const Tensor k1 = Tensor::leaf(random_normal({6, 3, 3, 2}, Philox(1, 1), 0.3));
  const Tensor k2 = Tensor::leaf(random_normal({6, 3, 3, 6}, Philox(1, 2), 0.2));
  const Tensor fc = Tensor::leaf(random_normal({5, 6 * 3 * 3}, Philox(1, 3), 0.2));
  const Tensor bias = Tensor::leaf(random_normal({6}, Philox(1, 4), 0.2)), fc_bias = Tensor::leaf(random_normal({5}, Philox(1, 5)));
  const auto w8b = make_quantizer("lsq", {.bits = 8, .weight = true});
  const auto run = [&](const Tensors& in) {
    Tensor x = (*a[0])(in[0]).value;
    x = relu6(conv2d(x, (*w8)(k1).value, Conv2dOptions::with(1, 1)) + bias);
    const Tensor stored = (*a[2])(x).value;
    Tensor y = conv2d((*a[1])(stored).value, (*w4)(k2).value, Conv2dOptions::with(1, 1));
    y = (*a[3])(clamp(y + stored, 0, 1.5)).value;
    y = max_pool2d(y, Pool2dOptions::with(2, 2));
    return linear(reshape(y, {y.dim(0), y.size() / y.dim(0)}), (*w8b)(fc).value, fc_bias);
  };
  const Array images = images_of({4, 6, 6, 2});
  Tensor expected;
  {
    const NoGrad no_grad;
    run({images});
    expected = run({images});
  }
  const integer::Model lowered = lower(trace(run, {Array::zeros({1, 6, 6, 2})}));
  integer::Session session(lowered, 4, true);
  const Array& logits = session.run(images);
  const Arrays values = integer::evaluate(lowered, images);
  CHECK(same_bytes(logits, values[static_cast<size_t>(lowered.output)]));
  for (int64_t i = 0; i < logits.size(); ++i)
    CHECK(logits.data<float>()[i] == doctest::Approx(expected.value().data<float>()[i]).epsilon(0.02));
}

TEST_CASE("what has no integer form is refused by name") {
  const auto refuses = [](const Case& c, const std::string& words) {
    try {
      quantized(c);
      FAIL("lowered ", c.model);
    } catch (const argument_error& error) {
      CHECK(std::string(error.what()).find(words) != std::string::npos);
    }
  };
  refuses({"resnet8", "dsq", 4, 4, Skip::floating, Ends::eight}, "give it a site");
  refuses({"resnet8", "dsq", 4, 4, Skip::u8, Ends::floating}, "no quantizer put it on a grid");
  refuses({"resnet8", "dsq", 32, 4, Skip::u8, Ends::eight}, "weights are not quantized");

  Quantized4 q = quantized(cases[0]);
  q.model->train();
  CHECK_THROWS_WITH_AS(
      lower(trace([&](const Tensors& in) { return (*q.model)(in[0]); }, {Array::zeros(q.model->input_shape())})),
      doctest::Contains("training mode"), argument_error);
}

TEST_CASE("a file holds the model: same codes after a round trip, weights at their true width") {
  const std::string path = (std::filesystem::temp_directory_path() / "stairgrad_integer_test.safetensors").string();
  for (const Case& c : cases) {
    const Quantized4 q = quantized(c);
    integer::save(q.lowered, path);
    const integer::Model loaded = integer::load(path);
    const Array images = images_of(q.model->input_shape(2), 7);
    integer::Session a(q.lowered, 2, true), b(loaded, 2, true);
    a.run(images);
    b.run(images);
    for (size_t v = 0; v < loaded.values.size(); ++v)
      CHECK(same_bytes(a.value(static_cast<int>(v)), b.value(static_cast<int>(v))));
  }
  const auto size_of_weights = [](int bits) {
    const Quantized4 q = quantized({"resnet8", "dsq", bits, 4, Skip::u8, Ends::same});
    int64_t bytes = integer::parameter_bytes(q.lowered);
    for (const integer::Layer& layer : q.lowered.layers)
      if (const auto* conv = std::get_if<integer::Convolution>(&layer)) bytes -= 8 * conv->m.size();
    return bytes;
  };
  CHECK(size_of_weights(8) == 4 * size_of_weights(2));
  std::filesystem::remove(path);
}

TEST_CASE("damaged files end in format_error: truncated anywhere, or with any byte changed") {
  const std::string path = (std::filesystem::temp_directory_path() / "stairgrad_integer_damaged.safetensors").string();
  integer::save(quantized({"resnet8", "dsq", 2, 2, Skip::u8, Ends::same}, 8).lowered, path);
  const data::Bytes whole = data::read_file(path);
  const auto attempt = [&](const data::Bytes& bytes) {
    std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    try {
      const integer::Model model = integer::load(path);
      integer::validate(model);
      return true;
    } catch (const format_error&) {
      return false;
    }
  };
  for (size_t length = 0; length < whole.size(); length += 1 + whole.size() / 200)
    CHECK_FALSE(attempt(data::Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length))));
  const Philox rng(11);
  int loaded = 0;
  for (uint64_t i = 0; i < 2000; ++i) {
    data::Bytes damaged = whole;
    damaged[rng.below(2 * i, damaged.size())] ^= static_cast<uint8_t>(1 + rng.below(2 * i + 1, 255));
    loaded += attempt(damaged);  // weights may change unseen; nothing else may happen
  }
  CHECK(loaded < 2000);
  std::filesystem::remove(path);
}

TEST_CASE("validate() names what does not hang together") {
  const integer::Model good = quantized(cases[0]).lowered;
  const auto refuses = [&](const auto& change, const std::string& words) {
    integer::Model bad = good;
    change(bad);
    CHECK_THROWS_WITH_AS(integer::validate(bad), doctest::Contains(words.c_str()), argument_error);
  };
  const auto conv = [](integer::Model& m) -> integer::Convolution& {
    for (integer::Layer& layer : m.layers)
      if (auto* c = std::get_if<integer::Convolution>(&layer)) return *c;
    throw std::logic_error("no convolution");
  };
  refuses([](integer::Model& m) { m.input = 99; }, "got value 99");
  refuses([](integer::Model& m) { std::swap(m.layers[0], m.layers[1]); }, "before it is written");
  refuses([](integer::Model& m) { m.layers.push_back(m.layers.back()); }, "written twice");
  refuses([](integer::Model& m) { m.layers.pop_back(); }, "nothing writes the output");
  const auto codes = [](integer::Model& m) -> integer::Value& {
    return *std::find_if(m.values.begin(), m.values.end(), [](const integer::Value& v) { return v.codes; });
  };
  refuses([&](integer::Model& m) { codes(m).grid.scale = 0; }, "scale 0");
  refuses([&](integer::Model& m) { codes(m).grid.zero_point = 0.5; }, "zero point 0.5");
  refuses([&](integer::Model& m) { codes(m).shape = {1, 2, 3}; }, "does not fit");
  refuses([&](integer::Model& m) { conv(m).m = Array::full(conv(m).m.shape(), NAN); }, "not finite");
  refuses([&](integer::Model& m) { conv(m).b = Array::zeros({1}); }, "one f32 for each");
  refuses([&](integer::Model& m) { conv(m).hi = 300; }, "code range");
  refuses([&](integer::Model& m) { conv(m).options.stride = {2, 2}; }, "gives");
}

TEST_CASE("a session refuses images of another shape or batch size") {
  const integer::Model lowered = quantized(cases[0]).lowered;
  CHECK_THROWS_WITH_AS(integer::Session(lowered, 0), doctest::Contains("at least 1"), argument_error);
  integer::Session session(lowered, 2);
  CHECK_THROWS_WITH_AS(session.run(images_of({1, 12, 12, 3})), doctest::Contains("expected f32(2,12,12,3)"), argument_error);
  CHECK_THROWS_WITH_AS(session.value(0), doctest::Contains("keep_values"), argument_error);
}
