// Lowering, the integer runtime, its oracle and its file.
#include <doctest/doctest.h>
#include <malloc.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <thread>

#include "../../autograd/ops.h"
#include "../../autograd/recorder.h"
#include "../../data/formats/file.h"
#include "../../data/formats/safetensors.h"
#include "../../kernels/allocator.h"
#include "../../kernels/threads.h"
#include "../../nn/model.h"
#include "../../quant/integer/attribution.h"
#include "../../quant/integer/model_file.h"
#include "../../quant/integer/reference.h"
#include "../../quant/integer/session.h"
#include "../../quant/lower.h"
#include "../../quant/sites.h"
#include "../folder.h"
#include "batch_norms.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace integer = stairgrad::quant::integer;

namespace {

Array images_of(const Shape& shape, uint64_t stream = 1) { return random_normal(shape, Philox(5, stream)); }

// A network as after a training: batch norm with statistics and scales of its own, some channels dead.
std::unique_ptr<nn::Model> network(const std::string& name, int64_t size = 12, int64_t channels = 3,
                                   double width = 0.5, const nn::ConvStyle& style = {}) {
  auto model = nn::make_model(
      name, {.in_channels = channels, .image_size = size, .classes = 10, .width = width, .style = style});
  nn::initialise(*model, 3);
  settle_batch_norms(*model, /*scales=*/true);
  model->eval();
  return model;
}

struct Case {
  std::string model, quantizer;
  int w_bits, a_bits;
  Skip skip;
  Ends ends;
  std::string granularity = "layer";
  double width = 0.5;
  nn::ConvStyle style = {};
  int64_t size = 12;  // of the images
};

struct Deployed {
  std::unique_ptr<nn::Model> model;
  integer::Model lowered;
};

Deployed quantized(const Case& c) {
  Deployed q{network(c.model, c.size, 3, c.width, c.style), {}};
  attach_sites(*q.model,
               uniform_policy(*q.model, {c.w_bits, c.a_bits, c.quantizer, c.granularity}, c.skip, c.ends));
  calibrate(*q.model, images_of(q.model->input_shape(16)));
  q.lowered = lower(
      trace([&](const Tensors& in) { return (*q.model)(in[0]); }, {Array::zeros(q.model->input_shape())}));
  return q;
}

bool same_bytes(const Array& a, const Array& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

const std::vector<Case> cases = {
    {"resnet8", "dsq", 4, 4, Skip::u8, Ends::eight},
    {"resnet8", "dsq", 2, 3, Skip::shared, Ends::same},
    {"resnet8b", "dsq", 8, 8, Skip::u8, Ends::same},
    {"resnet8b", "lsq", 4, 4, Skip::shared, Ends::eight},
    {"resnet14", "lsq", 3, 2, Skip::u8, Ends::eight},
    {"resnet8", "ste", 5, 6, Skip::u8, Ends::same},
    {"resnet8", "lsq", 1, 1, Skip::u8, Ends::eight},
    {"resnet8", "dsq", 4, 8, Skip::u8, Ends::eight, "channel"},
    {"resnet20", "dsq", 7, 7, Skip::shared, Ends::same},
    {"resnet8", "dsq", 1, 2, Skip::u8, Ends::same},
    {"resnet8", "lsq", 4, 4, Skip::floating, Ends::eight},
    {"resnet8", "dsq", 1, 1, Skip::u8, Ends::eight, "layer", 0.5, {false, false, 1e-5, nn::Activation::hardtanh}},
    {"resnet8b", "binary", 1, 1, Skip::u8, Ends::eight, "channel", 0.5, {false, false, 1e-5, nn::Activation::hardtanh}},
};

// The other families: bottlenecks, max pools, depthwise and grouped convolutions, ReLU6, skips without ReLU,
// biases instead of batch norms, one-sided padding.
const std::vector<Case> families = {
    {"resnet18", "dsq", 4, 4, Skip::u8, Ends::eight, "layer", 0.25},
    {"resnet50", "lsq", 4, 4, Skip::shared, Ends::eight, "channel", 0.125},
    {"vgg_small", "dsq", 4, 3, Skip::u8, Ends::eight, "layer", 0.125},
    {"vgg_small", "lsq", 8, 8, Skip::shared, Ends::same, "layer", 0.125},
    {"mobilenet_v1", "dsq", 8, 8, Skip::u8, Ends::same, "channel", 0.25},
    {"mobilenet_v2", "lsq", 8, 8, Skip::u8, Ends::same, "channel", 0.25},
    {"mobilenet_v2_cifar", "dsq", 4, 4, Skip::shared, Ends::eight, "layer", 0.25},
    {"regnetx_600mf", "dsq", 4, 4, Skip::u8, Ends::eight, "layer", 0.5},
    {"mnasnet1_0", "lsq", 6, 8, Skip::u8, Ends::eight, "layer", 0.25},
    {"mobilenet_v2", "lsq", 8, 8, Skip::u8, Ends::same, "channel", 0.25, {true, true}, 32},
    {"resnet18", "dsq", 4, 4, Skip::u8, Ends::eight, "layer", 0.125, {true}},
    {"resnet18", "dsq", 4, 4, Skip::floating, Ends::eight, "layer", 0.125},
    {"mobilenet_v2", "lsq", 8, 6, Skip::floating, Ends::same, "channel", 0.25},
};

std::vector<Case> all_cases() {
  std::vector<Case> all = cases;
  all.insert(all.end(), families.begin(), families.end());
  return all;
}

}  // namespace

TEST_CASE(
    "every code of the integer run equals the quantized evaluation, at any batch size and thread count") {
  for (const Case& c : all_cases()) {
    CAPTURE(c.model);
    CAPTURE(c.quantizer);
    CAPTURE(c.w_bits);
    const Deployed q = quantized(c);
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

TEST_CASE(
    "the integer run is what fake quantization in floats says, but for roundings at the border of two "
    "codes") {
  for (const Case& c : all_cases()) {
    CAPTURE(c.model);
    CAPTURE(c.quantizer);
    CAPTURE(c.a_bits);
    const Deployed q = quantized(c);
    const Array images = images_of(q.model->input_shape(8), 3);
    const SiteRecorder recorder(*q.model);
    const auto& sites = recorder.integers;
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
    CHECK(sites.size() >= 7);
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
  const Tensor bias = Tensor::leaf(random_normal({6}, Philox(1, 4), 0.2)),
               fc_bias = Tensor::leaf(random_normal({5}, Philox(1, 5)));
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
  const std::string path =
      (std::filesystem::temp_directory_path() / "stairgrad_integer_ops.safetensors").string();
  integer::save(lower(trace(run, {Array::zeros({1, 6, 6, 2})})), path);
  const integer::Model lowered = integer::load(path);
  std::filesystem::remove(path);
  integer::Session session(lowered, 4, true);
  const Array& logits = session.run(images);
  const Arrays values = integer::evaluate(lowered, images);
  CHECK(same_bytes(logits, values[static_cast<size_t>(lowered.output)]));
  for (int64_t i = 0; i < logits.size(); ++i)
    CHECK(logits.data<float>()[i] == doctest::Approx(expected.value().data<float>()[i]).epsilon(0.02));
}

TEST_CASE("a flattened map may be quantized again before the fully connected layer") {
  const auto wq = make_quantizer("lsq", {.bits = 8, .weight = true}),
             fq = make_quantizer("lsq", {.bits = 8, .weight = true});
  const auto a = make_quantizer("lsq", {.bits = 8}), b = make_quantizer("lsq", {.bits = 6}),
             c = make_quantizer("lsq", {.bits = 3});
  const Tensor k = Tensor::leaf(random_normal({4, 3, 3, 2}, Philox(2, 1), 0.3));
  const Tensor fc = Tensor::leaf(random_normal({5, 4 * 4 * 4}, Philox(2, 2), 0.2));
  for (const bool stored : {false, true}) {
    const auto run = [&](const Tensors& in) {
      Tensor x = relu(conv2d((*a)(in[0]).value, (*wq)(k).value, Conv2dOptions::with(1, 1)));
      if (stored) x = (*b)(x).value;
      x = (*c)(reshape(x, {x.dim(0), x.size() / x.dim(0)})).value;
      return linear(x, (*fq)(fc).value);
    };
    const Array images = images_of({3, 4, 4, 2});
    const NoGrad no_grad;
    run({images});
    const Tensor expected = run({images});
    const integer::Model lowered = lower(trace(run, {Array::zeros({1, 4, 4, 2})}));
    integer::Session session(lowered, 3);
    const Array& logits = session.run(images);
    CHECK(same_bytes(
        logits, integer::evaluate(lowered, images)[static_cast<size_t>(lowered.output)].reshape({3, 5})));
    for (int64_t i = 0; i < logits.size(); ++i)
      CHECK(logits.data<float>()[i] == doctest::Approx(expected.value().data<float>()[i]).epsilon(1e-3));
  }
}

TEST_CASE("graphs of the ops that have an integer form equal the float graph but for roundings") {
  // A site for each place; weights of 8 bits.
  struct Sites {
    std::map<std::string, std::shared_ptr<Quantizer>> quantizers;
    Tensor operator()(const Tensor& x, const std::string& name, int bits = 8) {
      auto& q = quantizers[name];
      if (!q) q = make_quantizer("lsq", {.bits = bits});
      return (*q)(x).value;
    }
    Tensor weights(const std::string& name, const Shape& shape) {
      auto& q = quantizers[name];
      if (!q) q = make_quantizer("lsq", {.bits = 8, .weight = true});
      auto& w = tensors[name];
      if (!w) w = Tensor::leaf(random_normal(shape, Philox(21, tensors.size()), 0.3));
      return (*q)(*w).value;
    }
    Tensor conv(const Tensor& x, const std::string& name, const Shape& shape,
                const Conv2dOptions& options = {}) {
      const Scope scope(name);
      return conv2d(x, weights(name, shape), options);
    }
    Tensor connected(const Tensor& x, const std::string& name, int64_t out) {
      const Scope scope(name);
      return linear(x, weights(name, {out, x.shape().back()}));
    }
    std::map<std::string, std::optional<Tensor>> tensors;
  };
  using Graph = std::function<Tensor(Sites&, const Tensor&)>;
  const Conv2dOptions same = Conv2dOptions::with(1, 1);
  const auto head = [](Sites& s, const Tensor& x) {
    return s.conv(s(x, "last"), "head", {3, x.dim(1), x.dim(2), x.dim(3)});
  };
  const auto flat = [](const Tensor& x) { return reshape(x, {x.dim(0), x.size() / x.dim(0)}); };
  const auto normal = [](const Tensor& x) {
    const int64_t c = x.shape().back();
    const auto drawn = [&](uint64_t stream, double low) {
      return Tensor(random_uniform({c}, Philox(22, stream), low, 1.5));
    };
    return batch_norm_eval(x, drawn(1, -1), drawn(2, -0.5), drawn(3, -0.5), drawn(4, 0.5));
  };
  const std::vector<std::pair<std::string, Graph>> graphs = {
      {"a max pool that is flattened, then quantized",
       [&](Sites& s, const Tensor& x) {
         const Tensor y = max_pool2d(relu(s.conv(x, "a", {4, 3, 3, 3}, same)), Pool2dOptions::with(2, 2));
         return s.connected(s(flat(y), "flat"), "b", 3);
       }},
      {"joined maps that are flattened, then quantized",
       [&](Sites& s, const Tensor& x) {
         const Tensor a = relu(s.conv(x, "a", {4, 3, 3, 3}, same)), b = s.conv(x, "b", {2, 1, 1, 3});
         return s.connected(s(flat(concat({a, b}, 3)), "flat"), "c", 3);
       }},
      {"an activation behind a flattened map, and one behind two",
       [&](Sites& s, const Tensor& x) {
         const Tensor a = s(relu(flat(s.conv(x, "a", {4, 3, 3, 3}, same))), "a.out", 5);
         const Tensor b = s.connected(a, "b", 6);
         return s.connected(s(clamp(relu(reshape(b, {b.dim(0), 1, 1, 6})), -1, 2), "b.out"), "c", 3);
       }},
      {"activations behind a max pool, an average and joined maps",
       [&](Sites& s, const Tensor& x) {
         const Tensor a = max_pool2d(s.conv(x, "a", {4, 3, 3, 3}, same), Pool2dOptions::with(2, 1));
         const Tensor b =
             avg_pool2d(s.conv(s(relu(a), "a.out"), "b", {4, 1, 1, 4}), Pool2dOptions::with(2, 1));
         const Tensor y = s(hardtanh(b, -0.2, 0.7), "b.out");
         return head(s, relu6(concat({s.conv(y, "c", {3, 1, 1, 4}), s.conv(y, "d", {2, 1, 1, 4})}, 3)));
       }},
      {"residual adds behind an activation, in both orders",
       [&](Sites& s, const Tensor& x) {
         const Tensor a = s(relu(s.conv(x, "a", {4, 3, 3, 3}, same)), "a.out");
         const Tensor b = s(relu(normal(s.conv(a, "b", {4, 3, 3, 4}, same))) + a, "b.out");
         return head(s, b + relu(normal(s.conv(b, "c", {4, 3, 3, 4}, same))));
       }},
      {"a fully connected layer for each pixel",
       [&](Sites& s, const Tensor& x) {
         return head(s, relu(s.connected(s(s.conv(x, "a", {4, 3, 3, 3}, same), "a.out"), "b", 5)));
       }},
      {"batch norm whose scale is computed from parameters",
       [&](Sites& s, const Tensor& x) {
         const Tensor p = Tensor::leaf(Array::of<float>({0.5f, 1, -1, 2})),
                      y = s.conv(x, "a", {4, 3, 3, 3}, same);
         return head(s, relu(batch_norm_eval(y, p * p + 0.1, p, p.detach(), p.detach() * p.detach())));
       }},
      {"joined branches that share a quantizer",
       [&](Sites& s, const Tensor& x) {
         const Tensor a = relu(s.conv(x, "a", {4, 3, 3, 3}, same)), b = s.conv(x, "b", {6, 1, 1, 3});
         return head(s, relu(s.conv(s(concat({a, b}, 3), "joined", 5), "c", {4, 3, 3, 10}, same)));
       }},
      {"joined tensors on one grid, then batch norm of what is stored",
       [&](Sites& s, const Tensor& x) {
         const Tensor a = s(relu(s.conv(x, "a", {3, 3, 3, 3}, same)), "site");
         const Tensor both = concat({a, max_pool2d(a, Pool2dOptions::with(3, 1, 1))}, 3);
         const Tensor scale = Tensor::leaf(Array::of<float>({1, -2, 0.5f, 0, 1, 3})),
                      shift = Tensor::leaf(Array::of<float>({0.3f, 0, -1, 0.5f, 1, 0}));
         return head(
             s, relu(batch_norm_eval(both, scale, shift, shift.detach(), Tensor(Array::full({6}, 0.7)))));
       }},
      {"average pools with padding, before and after a layer",
       [&](Sites& s, const Tensor& x) {
         const Tensor a =
             s(avg_pool2d(s(s.conv(x, "a", {4, 3, 3, 3}, same), "signed"), Pool2dOptions::with(3, 2, 1)),
               "pooled");
         return head(s, avg_pool2d(relu(s.conv(a, "b", {5, 1, 1, 4})), {{1, 2}, {1, 2}}));
       }},
      {"a sum of two stored tensors, limited and scaled",
       [&](Sites& s, const Tensor& x) {
         const Tensor a = s(relu(s.conv(x, "a", {4, 3, 3, 3}, same)), "a.out"),
                      b = s(s.conv(x, "b", {4, 1, 1, 3}), "b.out");
         return head(s, hardtanh(s(a + b, "sum") * 1.5 + 0.1, -0.5, 2));
       }},
      {"a float skip, twice, and floats that are pooled",
       [&](Sites& s, const Tensor& x) {
         Tensor y = max_pool2d(relu(s.conv(x, "a", {4, 3, 3, 3}, same)), Pool2dOptions::with(2, 2));
         y = relu(s.conv(s(y, "y1", 4), "b", {4, 3, 3, 4}, same) + y);
         y = relu6(y + s.conv(s(y, "y2", 4), "c", {4, 3, 3, 4}, same));
         return s.connected(s(global_avg_pool(y), "flat"), "d", 3);
       }},
      {"dilated, grouped and one-sided convolutions that end in a map of codes",
       [&](Sites& s, const Tensor& x) {
         Tensor y = s(relu(s.conv(x, "a", {6, 2, 3, 3}, {{1, 1}, {1, 0, 2, 2}, {1, 2}, 1})), "a.out", 3);
         y = s.conv(y, "b", {12, 3, 3, 2}, {{2, 1}, {0, 1, 1, 1}, {1, 1}, 3});
         return s(y, "b.out", 6);
       }},
      {"a layer that is read before and after its activation",
       [&](Sites& s, const Tensor& x) {
         const Tensor a = s.conv(x, "a", {4, 3, 3, 3}, same);
         return head(s, s(a, "raw") + s.conv(s(relu(a), "active"), "b", {4, 1, 1, 4}));
       }},
  };
  for (const auto& entry : graphs) {
    CAPTURE(entry.first);
    const Graph& graph = entry.second;
    Sites sites;
    const auto run = [&](const Tensors& in) { return graph(sites, sites(in[0], "images")); };
    const Array images = images_of({4, 6, 6, 3}, 11);
    const NoGrad no_grad;
    run({images});
    const Array expected = run({images}).value();
    const integer::Model lowered = lower(trace(run, {Array::zeros({1, 6, 6, 3})}));
    integer::Session session(lowered, 4, /*keep_values=*/true);
    const Array logits = session.run(images).clone();
    const Arrays values = integer::evaluate(lowered, images);
    for (size_t v = 0; v < values.size(); ++v) {
      CAPTURE(lowered.values[v].name);
      CHECK(same_bytes(session.value(static_cast<int>(v)), values[v]));
    }
    integer::Session planned(lowered, 4);
    CHECK(same_bytes(planned.run(images), logits));
    double off = 0, largest = 0;
    for (int64_t i = 0; i < logits.size(); ++i) {
      largest = std::max<double>(largest, std::abs(expected.data<float>()[i]));
      off = std::max<double>(off, std::abs(logits.data<float>()[i] - expected.data<float>()[i]));
    }
    CHECK(largest > 0.1);
    CHECK(off < 0.05 * largest);
    for (const integer::Value& v : lowered.values)
      CHECK((v.codes || !v.note.empty() || v.name == "images" || v.name == "logits"));
  }
}

TEST_CASE("images of one batch may take different bit widths, each as if it ran alone") {
  integer::Model model = quantized({"resnet8", "lsq", 4, 4, Skip::u8, Ends::eight}).lowered;
  // Every remapped site gets grids of 2, 4 and 6 bits instead of its one of 4.
  int choice = 0;
  for (integer::Layer& layer : model.layers) {
    auto* remap = std::get_if<integer::Remap>(&layer);
    if (!remap) continue;
    integer::Value& value = model.values[static_cast<size_t>(remap->dst)];
    const std::vector<integer::Remap::Table> given = std::exchange(remap->tables, {});
    const Grid site = model.values[static_cast<size_t>(remap->src)].grid;
    value.choice = choice++;
    for (const int bits : {4, 2, 6}) {
      const Grid grid = bits == 4 ? value.grid
                                  : Grid{value.grid.scale * 15 / static_cast<float>((1 << bits) - 1),
                                         static_cast<float>(bits), 0, (1 << bits) - 1};
      value.alternatives.push_back({bits, grid});
      integer::Remap::Table table;
      for (int code = 0; code < 256; ++code)
        table[static_cast<size_t>(code)] = static_cast<uint8_t>(grid::encode(grid::decode(code, site), grid));
      remap->tables.push_back(bits == 4 ? given[0] : table);
    }
    for (integer::Layer& reader : model.layers) {
      auto* conv = std::get_if<integer::Convolution>(&reader);
      if (!conv || conv->src != remap->dst) continue;
      const int64_t channels = conv->m.size();
      Array b({3, channels}), m({3, channels});
      for (int64_t i = 0; i < 3 * channels; ++i) {
        const Grid& grid = value.alternatives[static_cast<size_t>(i / channels)].grid;
        m.data<float>()[i] = conv->m.data<float>()[i % channels] * grid.scale / value.grid.scale;
        b.data<float>()[i] = conv->b.data<float>()[i % channels] + static_cast<float>(i / channels);
      }
      conv->b = b;
      conv->m = m;
    }
  }
  REQUIRE(choice == 3);
  const Folder folder;
  const std::string path = folder / "alternatives.safetensors";
  integer::save(model, path);
  const integer::Model loaded = integer::load(path);
  const int64_t n = 7;
  const Array images = images_of({n, 12, 12, 3}, 4);
  Array choices({n, choice}, DType::u8);
  for (int64_t i = 0; i < choices.size(); ++i)
    choices.data<uint8_t>()[i] = static_cast<uint8_t>(Philox(3).below(static_cast<uint64_t>(i), 3));
  integer::Session together(loaded, n), kept(loaded, n, true), alone(loaded, 1);
  const Array logits = together.run(images, choices).clone();
  CHECK(same_bytes(kept.run(images, choices), logits));
  const Arrays expected = integer::evaluate(loaded, images, choices);
  for (size_t v = 0; v < expected.size(); ++v)
    CHECK(same_bytes(kept.value(static_cast<int>(v)), expected[v]));
  for (int64_t i = 0; i < n; ++i)
    CHECK(same_bytes(alone.run(images.slice(i, 1), choices.slice(i, 1)), logits.slice(i, 1)));
  CHECK_FALSE(same_bytes(together.run(images), logits));
  CHECK(same_bytes(together.run(images, Array::zeros({n, choice}, DType::u8)), together.run(images).clone()));

  // BOPs follow the choice.
  const std::vector<int> four(static_cast<size_t>(choice), 0), two(static_cast<size_t>(choice), 1);
  const int64_t dear = integer::bops(loaded, four), cheap = integer::bops(loaded, two);
  CHECK(integer::bops(loaded) == dear);
  int64_t dynamic = 0;
  for (const integer::Layer& layer : loaded.layers)
    if (const auto* c = std::get_if<integer::Convolution>(&layer))
      if (!loaded.values[static_cast<size_t>(c->src)].alternatives.empty())
        dynamic += loaded.values[static_cast<size_t>(c->dst)].shape.size() * c->weights.size() /
                   c->weights.dim(0) * c->weight_bits;
  CHECK(dear - cheap == 2 * dynamic);

  choices.data<uint8_t>()[3] = 3;
  CHECK_THROWS_WITH_AS(together.run(images, choices), doctest::Contains("3 alternatives"), argument_error);
  CHECK_THROWS_WITH_AS(together.run(images, choices.slice(0, 2)), doctest::Contains("[session] choices"),
                       argument_error);
}

TEST_CASE("a run allocates nothing") {
  for (const Case& c : {cases[0], families[0], families[4], families[11]}) {
    const integer::Model lowered = quantized(c).lowered;
    for (const int64_t batch : {1, 6}) {
      integer::Session session(lowered, batch);
      const Array images = images_of({batch, c.size, c.size, 3});
      session.run(images);
      const auto before = mallinfo2();
      reset_peak();
      const MemoryStats blocks = memory_stats();
      for (int i = 0; i < 10; ++i) session.run(images);
      CHECK(memory_stats().peak == blocks.in_use);
      CHECK(mallinfo2().uordblks == before.uordblks);
    }
  }
}

TEST_CASE("each layer, fed the codes of the integer run, gives the codes of the float graph but for ties") {
  // What lower() folds (batch norm, bias, scales, zero points) is checked here one layer at a time, in
  // double.
  for (const Case& c : cases) {
    if (c.skip == Skip::floating) continue;  // there the codes are made by a layer of their own
    CAPTURE(c.model);
    CAPTURE(c.quantizer);
    const Deployed q = quantized(c);
    std::map<std::string, Array> state = q.model->state();
    const Arrays values = integer::evaluate(q.lowered, images_of(q.model->input_shape(4), 5));
    int64_t total = 0, off = 0;
    for (const integer::Layer& layer : q.lowered.layers) {
      const auto* conv = std::get_if<integer::Convolution>(&layer);
      if (!conv || !conv->name.ends_with("conv1")) continue;
      const std::string bn = conv->name.substr(0, conv->name.size() - 5) + "bn1.";
      const integer::Value &src = q.lowered.values[static_cast<size_t>(conv->src)],
                           &dst = q.lowered.values[static_cast<size_t>(conv->dst)];
      const auto decode = [](const Array& codes, const Grid& g) {
        Array x = cast(codes, DType::f64);
        for (int64_t i = 0; i < x.size(); ++i)
          x.data<double>()[i] = (x.data<double>()[i] - g.zero_point) * g.scale;
        return x;
      };
      const Quantizer* weights = nullptr;
      for (const nn::NamedModule& m : q.model->modules())
        if (m.name == "sites." + conv->name + ".weight") weights = dynamic_cast<Quantizer*>(m.module);
      REQUIRE(weights);
      const Array w = cast(fake_quantize(state.at(conv->name + ".weight"), weights->to_grid()), DType::f64);
      const Array x = decode(values[static_cast<size_t>(conv->src)], src.grid);
      const Array y = kernels::conv2d(x, w, conv->options), &codes = values[static_cast<size_t>(conv->dst)];
      for (int64_t i = 0; i < y.size(); ++i) {
        const int64_t k = i % y.dim(3);
        const auto at = [&](const char* name) {
          return static_cast<double>(state.at(bn + name).data<float>()[k]);
        };
        const double normal =
            (y.data<double>()[i] - at("running_mean")) / std::sqrt(at("running_var") + 1e-5) * at("weight") +
            at("bias");
        const bool hardtanh = c.style.activation == nn::Activation::hardtanh;
        const double active = hardtanh ? std::clamp(normal, -1.0, 1.0) : std::max(0.0, normal);
        const double t = active / dst.grid.scale + dst.grid.zero_point;
        const double nearest = std::nearbyint(std::clamp(t, 0.0, static_cast<double>(dst.grid.hi)));
        const bool tie = std::abs(std::abs(t - std::floor(t)) - 0.5) < 1e-4;
        off += !tie && nearest != codes.data<uint8_t>()[i];
        ++total;
      }
    }
    CHECK(total > 1000);
    CHECK(off == 0);
  }
}

TEST_CASE("attribution goes back over averages and changes of grid to a map, and refuses another layer") {
  const auto w = make_quantizer("lsq", {.bits = 8, .weight = true});
  std::vector<std::shared_ptr<Quantizer>> a;
  for (int i = 0; i < 4; ++i) a.push_back(make_quantizer("lsq", {.bits = i == 2 ? 4 : 8}));
  const Tensor k = Tensor::leaf(random_normal({3, 1, 1, 2}, Philox(4, 1)));
  const Tensor inner = Tensor::leaf(random_normal({6, 12}, Philox(4, 2))),
               wide = Tensor::leaf(random_normal({5, 12}, Philox(4, 3))),
               narrow = Tensor::leaf(random_normal({5, 6}, Philox(4, 4)));
  for (const bool two : {false, true}) {
    const auto run = [&](const Tensors& in) {
      Tensor x = (*a[1])(relu(conv2d((*a[0])(in[0]).value, (*w)(k).value))).value;
      x = (*a[2])(reshape(avg_pool2d(x, Pool2dOptions::with(2, 2)), {x.dim(0), 12})).value;
      if (two) x = (*a[3])(relu(linear(x, (*w)(inner).value))).value;
      return linear(x, (*w)(two ? narrow : wide).value);
    };
    const Array images = images_of({2, 4, 4, 2});
    run({images});
    const integer::Model lowered = lower(trace(run, {Array::zeros({1, 4, 4, 2})}));
    integer::Session session(lowered, 2, /*keep_values=*/true);
    session.run(images);
    if (two) {
      CHECK_THROWS_WITH_AS(attribution_map(lowered, session, {0, 1}), doctest::Contains("one pixel"),
                           argument_error);
    } else {
      CHECK(attribution_map(lowered, session, {0, 1}).shape() == Shape{2, 4, 4});
    }
  }
}

TEST_CASE("limits after limits, and batch norm after them, are not folded wrongly") {
  const auto w = make_quantizer("lsq", {.bits = 8, .weight = true});
  const auto a = make_quantizer("lsq", {.bits = 8}), b = make_quantizer("lsq", {.bits = 8});
  const Tensor k = Tensor::leaf(random_normal({2, 1, 1, 2}, Philox(3, 1)));
  const Tensor ones = Tensor::leaf(Array::full({2}, 1)), zeros = Tensor::leaf(Array::zeros({2}));
  const auto refuses = [&](const std::function<Tensor(const Tensor&)>& tail, const char* words) {
    const auto run = [&](const Tensors& in) {
      const Tensor x = conv2d((*a)(in[0]).value, (*w)(k).value);
      return conv2d((*b)(tail(x)).value, (*w)(k).value);
    };
    run({images_of({2, 2, 2, 2})});
    CHECK_THROWS_WITH_AS(lower(trace(run, {images_of({1, 2, 2, 2})})), doctest::Contains(words),
                         argument_error);
  };
  refuses(
      [&](const Tensor& x) {
        return batch_norm_eval(clamp(x, -HUGE_VAL, 1), ones, zeros, zeros.detach(), ones.detach());
      },
      "batch norm follows an activation");
  refuses([&](const Tensor& x) { return clamp(clamp(x, -HUGE_VAL, -1), 0, 2); }, "exclude each other");
}

TEST_CASE("shapes and axes that lowering cannot follow are refused by op and layer") {
  const auto w = make_quantizer("lsq", {.bits = 8, .weight = true});
  std::vector<std::shared_ptr<Quantizer>> a;
  for (int i = 0; i < 3; ++i) a.push_back(make_quantizer("lsq", {.bits = 8}));
  const Tensor k = Tensor::leaf(random_normal({4, 1, 1, 4}, Philox(3, 1))),
               ones = Tensor::leaf(Array::full({4}, 1));
  const auto conv = [&](const Tensor& x) { return conv2d(x, (*w)(k).value); };
  const auto flat = [](const Tensor& x) { return reshape(x, {x.dim(0), x.size() / x.dim(0)}); };
  const auto normal = [](const Tensor& x, const Tensor& p) {
    return batch_norm_eval(x, p, p, p.detach(), p.detach());
  };
  // `tail` follows a convolution of (4, 4, 4) codes and is quantized.
  const auto refuses = [&](const std::function<Tensor(const Tensor&)>& tail, const std::string& op,
                           const char* why) {
    CAPTURE(op);
    const auto run = [&](const Tensors& in) {
      const Tensor x = conv((*a[0])(in[0]).value);
      const Scope scope("odd");
      return (*a[1])(tail(x)).value;
    };
    run({images_of({2, 4, 4, 4})});
    const Trace t = trace(run, {images_of({1, 4, 4, 4})});
    CHECK_THROWS_WITH_AS(lower(t), doctest::Contains(text("[lower] ", op, " of odd").c_str()),
                         argument_error);
    CHECK_THROWS_WITH_AS(lower(t), doctest::Contains(why), argument_error);
  };
  refuses(
      [&](const Tensor& x) {
        return relu(normal(reshape(x, {x.dim(0), 8, 8, 1}), Tensor::leaf(Array::full({1}, 1))));
      },
      "reshape", "only flattening");
  refuses(
      [&](const Tensor& x) {
        return reshape(flat(x), {x.dim(0), 8, 2, 4});
      },
      "reshape", "only flattening");
  const Tensor square = Tensor::leaf(random_normal({4, 4}, Philox(3, 4)));
  refuses(
      [&](const Tensor& x) {
        return linear((*a[2])(reshape(x, {x.size() / 4, 4})).value, (*w)(square).value);
      },
      "reshape", "only flattening");
  refuses(
      [&](const Tensor& x) {
        return reshape(relu(reshape(x, {x.size() / 4, 4})), x.shape());
      },
      "reshape", "only flattening");
  const Tensor wide = Tensor::leaf(random_uniform({64}, Philox(3, 2), 0.5, 1));
  refuses([&](const Tensor& x) { return relu(reshape(normal(flat(x), wide), x.shape())); }, "batch_norm",
          "parameters for 64 channels, but the map it follows has 4");
  const Tensor rows = Tensor::leaf(random_normal({4, 1, 1}, Philox(3, 3)));
  refuses([&](const Tensor& x) { return relu(x + rows); }, "add", "one value for each channel");
  refuses(
      [&](const Tensor& x) {
        return relu(concat({flat(x), flat(relu(x))}, 1));
      },
      "concat", "flattened maps");
  refuses(
      [&](const Tensor& x) { return normal(x, slice(reshape(global_avg_pool(x), {x.dim(0) * 4}), 0, 0, 4)); },
      "batch_norm", "depend on the images");
  refuses(
      [&](const Tensor& x) {
        return conv((*a[2])(x).value) + (*a[2])(reshape(global_avg_pool(x), {x.dim(0), 1, 1, 4})).value;
      },
      "conv2d", "other shapes");
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
  refuses({"resnet8", "dsq", 4, 4, Skip::u8, Ends::floating}, "no quantizer put it on a grid");
  refuses({"resnet8", "dsq", 32, 4, Skip::u8, Ends::eight}, "weights are not quantized");

  Deployed q = quantized(cases[0]);
  q.model->train();
  CHECK_THROWS_WITH_AS(lower(trace([&](const Tensors& in) { return (*q.model)(in[0]); },
                                   {Array::zeros(q.model->input_shape())})),
                       doctest::Contains("training mode"), argument_error);
}

TEST_CASE("a file holds the model: same codes after a round trip, weights at their true width") {
  const std::string path =
      (std::filesystem::temp_directory_path() / "stairgrad_integer_test.safetensors").string();
  for (const Case& c : cases) {
    const Deployed q = quantized(c);
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
    const Deployed q = quantized({"resnet8", "dsq", bits, 4, Skip::u8, Ends::same});
    int64_t bytes = integer::parameter_bytes(q.lowered);
    for (const integer::Layer& layer : q.lowered.layers)
      if (const auto* conv = std::get_if<integer::Convolution>(&layer)) bytes -= 8 * conv->m.size();
    return bytes;
  };
  CHECK(size_of_weights(8) == 4 * size_of_weights(2));
  std::filesystem::remove(path);
}

TEST_CASE("a file is known as an integer model or as another one, and must have its checksum") {
  const std::string path =
      (std::filesystem::temp_directory_path() / "stairgrad_integer_sealed.safetensors").string();
  data::save_safetensors(path, {});
  CHECK_FALSE(integer::load_if_integer(path).has_value());
  integer::save(quantized(cases[0]).lowered, path);
  CHECK(integer::load_if_integer(path).has_value());
  data::SafeTensors content = data::load_safetensors(path);
  content.metadata.erase("stairgrad.checksum");
  data::save_safetensors(path, content);
  CHECK_THROWS_WITH_AS(integer::load(path), doctest::Contains("it has no checksum"), format_error);
  std::filesystem::remove(path);
}

TEST_CASE("damaged files end in format_error: truncated anywhere, or with any byte changed") {
  const std::string path =
      (std::filesystem::temp_directory_path() / "stairgrad_integer_damaged.safetensors").string();
  Case small{"resnet8", "dsq", 2, 2, Skip::u8, Ends::same};
  small.size = 8;
  integer::save(quantized(small).lowered, path);
  const data::Bytes whole = data::read_file(path);
  const auto attempt = [&](const data::Bytes& bytes) {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    try {
      integer::Session session(integer::load(path), 1);
      session.run(images_of({1, 8, 8, 3}));
      return true;
    } catch (const argument_error&) {
      return true;  // whole, but the image has another shape
    } catch (const format_error&) {
      return false;
    }
  };
  CHECK(attempt(whole));
  for (size_t length = 0; length < whole.size(); length += 1 + whole.size() / 200)
    CHECK_FALSE(attempt(data::Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length))));
  const Philox rng(11);
  int loaded = 0;
  for (uint64_t i = 0; i < 2000; ++i) {
    data::Bytes damaged = whole;
    damaged[rng.below(2 * i, damaged.size())] ^= static_cast<uint8_t>(1 + rng.below(2 * i + 1, 255));
    loaded += attempt(damaged);  // what no checksum guards: its own name, the policy's text, spaces
  }
  CHECK(loaded < 10);
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
  refuses([&](integer::Model& m) { codes(m).shape = {1, 2, 3}; }, "(1,2,3)");
  refuses([&](integer::Model& m) { conv(m).m = Array::full(conv(m).m.shape(), NAN); }, "not finite");
  refuses([&](integer::Model& m) { conv(m).b = Array::zeros({1}); }, "one f32 for each");
  refuses([&](integer::Model& m) { conv(m).hi = 300; }, "code range");
  refuses([&](integer::Model& m) { conv(m).options.padding = {9, 1, 1, 1}; }, "more than the kernel reaches");
  refuses([](integer::Model& m) { m.output = m.input; }, "same value");
  refuses([&](integer::Model& m) { codes(m).codes = false; }, "reads floats, expected codes");
  refuses([&](integer::Model& m) { codes(m).bits = 2; }, "codes of 2 bits");
  refuses([&](integer::Model& m) { conv(m).options.stride = {2, 2}; }, "gives");
  refuses([&](integer::Model& m) { conv(m).options.dilation = {1 << 17, 1}; }, "expected 1 to 65536");
  refuses([](integer::Model& m) { m.mean = {0.5f, 0.5f, 0.5f}; }, "got 3 means and 0 deviations");
  refuses([](integer::Model& m) { m.mean = m.deviation = {0.5f, 0.5f}; }, "none, one or 3");
  refuses([](integer::Model& m) { m.mean = {0}, m.deviation = {0}; }, "the deviation positive");
  refuses([](integer::Model& m) { m.mean = {NAN}, m.deviation = {1}; }, "expected finite numbers");
  refuses([](integer::Model& m) { m.class_names = {"a"}; }, "got 1 class names, expected none or 10");
  refuses(
      [&](integer::Model& m) {
        codes(m).alternatives.assign(integer::max_alternatives + 1, {codes(m).bits, codes(m).grid});
        codes(m).choice = 0;
      },
      "expected up to 256");
  integer::Model named = good;
  named.mean = named.deviation = {0.5f};
  named.class_names.assign(10, "a");
  CHECK_NOTHROW(integer::validate(named));
}

namespace {

// Images of shape `image` in codes, and one convolution of them to floats.
integer::Model one_convolution(const Shape& image, const Array& weights, const Conv2dOptions& options) {
  const Shape all = kernels::conv2d_shape({1, image[0], image[1], image[2]}, weights.shape(), options);
  integer::Model m;
  m.values = {{"images", image, false, 0, {}, ""},
              {"codes", image, true, 8, {1, 0, 0, 255}, ""},
              {"logits", {all[1], all[2], all[3]}, false, 0, {}, ""}};
  m.output = 2;
  integer::Convolution c;
  c.name = "layer";
  c.src = 1;
  c.dst = 2;
  c.options = options;
  c.weights = weights;
  c.b = Array::zeros({all[3]});
  c.m = Array::full({all[3]}, 1);
  m.layers = {integer::Encode{0, 1}, c};
  return m;
}

}  // namespace

TEST_CASE("a padding may not ask for memory that the values do not take") {
  const auto padded = [](int64_t side) {
    return one_convolution({1, 1, 1}, Array::full({1, 2, 2, 1}, 1, DType::s8),
                           {{1 << 16, 1 << 16}, {side, side, side, side}, {side, side}, 1});
  };
  CHECK_NOTHROW(integer::validate(padded(8000)));
  CHECK_THROWS_WITH_AS(integer::validate(padded(65'535)),
                       doctest::Contains("with a padding to (131071,131071,1)"), argument_error);
}

TEST_CASE("a model is refused for the sums of its weights, as a session would, and not for their number") {
  constexpr int64_t taps = 80'000;  // 80,000 * 255 * 128 > 2^31
  const auto wide = [](int weight) {
    return one_convolution({4, 4, taps / 16}, Array::full({1, 4, 4, taps / 16}, weight, DType::s8), {});
  };
  const integer::Model good = wide(-1);
  integer::Session session(good, 1);
  const Array images = Array::full({1, 4, 4, taps / 16}, 255);
  CHECK(session.run(images).to_vector() == std::vector<double>{-255.0 * taps});
  CHECK_THROWS_WITH_AS(integer::validate(wide(127)), doctest::Contains("may pass 2^31"), argument_error);
}

TEST_CASE("limits make +0 of -0 and the lower one of NaN, in the runtime as in its oracle") {
  integer::Model m = one_convolution({1, 1, 1}, Array::full({2, 1, 1, 1}, 1, DType::s8), {});
  m.values.push_back({"limited", m.values[2].shape, false, 0, {}, "for the test"});
  integer::Convolution first = std::get<integer::Convolution>(m.layers[1]);
  first.m = Array::full({2}, -3e38);  // -inf, or -0 where the code is 0
  integer::Convolution last = first;
  last.m = Array::full({2}, 3e38);  // inf, which a skip of -inf makes NaN
  last.dst = 3;
  last.skip = 2;
  last.low = 0;
  m.layers = {m.layers[0], first, last};
  m.output = 3;
  first.low = 0;
  for (const float x : {0.0f, 9.0f})
    for (const bool skip : {true, false}) {
      m.layers[2] = skip ? last : first;
      std::get<integer::Convolution>(m.layers[2]).dst = 3;
      const Array images = Array::full({1, 1, 1, 1}, x);
      const Array expected = integer::evaluate(m, images)[3];
      integer::Session session(m, 1);
      const Array& got = session.run(images);
      CHECK(same_bytes(got, expected.reshape(got.shape())));
      CHECK(same_bytes(got, Array::zeros(got.shape())));
    }
}

TEST_CASE("a session made in another thread has the process's number of threads") {
  const integer::Model lowered = quantized(cases[0]).lowered;
  const int before = threads();
  for (const int count : {1, 2}) {
    set_threads(count);
    const int64_t expected = integer::Session(lowered, 4).buffer_bytes();
    int64_t bytes = 0;
    std::thread([&] { bytes = integer::Session(lowered, 4).buffer_bytes(); }).join();
    CHECK(bytes == expected);
  }
  set_threads(before);
}

TEST_CASE("what fuzzers found, and the model they begin with: a model or a format_error") {
  int files = 0, models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(CORPUS)) {
    INFO(entry.path().string());
    ++files;
    try {
      integer::load(entry.path().string());
      ++models;
    } catch (const format_error&) {
    }
  }
  CHECK(files > 1);
  CHECK(models > 0);
}

TEST_CASE("sessions of one model run side by side") {
  const integer::Model lowered = quantized(cases[0]).lowered;
  const Array images = images_of({3, 12, 12, 3});
  integer::Session first(lowered, 3);
  const Array expected = first.run(images).clone();
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      integer::Session own(lowered, 3);
      integer::Session moved(std::move(own));
      for (int i = 0; i < 20; ++i) wrong += !same_bytes(moved.run(images), expected);
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("a session refuses images of another shape or batch size") {
  const integer::Model lowered = quantized(cases[0]).lowered;
  CHECK_THROWS_WITH_AS(integer::Session(lowered, 0), doctest::Contains("at least 1"), argument_error);
  integer::Session session(lowered, 2);
  CHECK_THROWS_WITH_AS(session.run(images_of({1, 12, 12, 3})), doctest::Contains("expected f32(2,12,12,3)"),
                       argument_error);
  CHECK_THROWS_WITH_AS(session.value(0), doctest::Contains("keep_values"), argument_error);
}
