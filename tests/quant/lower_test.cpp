// Lowering: graphs of all ops that have an integer form, and refusals.
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <optional>

#include "../../autograd/ops.h"
#include "../../autograd/recorder.h"
#include "../../quant/image_choice.h"
#include "../../quant/integer/model_file.h"
#include "../../quant/integer/reference.h"
#include "../../quant/integer/session.h"
#include "../folder.h"
#include "deployed.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace integer = stairgrad::quant::integer;

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

TEST_CASE(
    "choices of an image are lowered where its layer reads the same choice, and differ by affine maps "
    "alone") {
  const auto w = make_quantizer("lsq", {.bits = 8, .weight = true});
  const auto stored = make_quantizer("lsq", {.bits = 8}), out = make_quantizer("lsq", {.bits = 8});
  const auto four = make_quantizer("lsq", {.bits = 4}), two = make_quantizer("lsq", {.bits = 2});
  const Tensor k = Tensor::leaf(random_normal({4, 1, 1, 4}, Philox(3, 1)));
  const auto first_of = [](size_t parts) {
    Array gates = Array::zeros({1, static_cast<int64_t>(parts)});
    gates.data<float>()[0] = 1;
    return Tensor(gates);
  };
  const auto lowered = [&](int column, const std::function<Tensors(const Tensor&)>& parts) {
    const auto run = [&](const Tensors& in) {
      const Tensor x = (*stored)(in[0]).value;
      const Tensor chosen = image_choice(first_of(2), {(*four)(x).value, (*two)(x).value}, 0);
      const Scope scope("odd");
      const Tensors maps = parts(conv2d(chosen, (*w)(k).value));
      return (*out)(image_choice(first_of(maps.size()), maps, column)).value;
    };
    run({images_of({1, 4, 4, 4})});
    return lower(trace(run, {images_of({1, 4, 4, 4})}));
  };
  const auto affine_maps = [](const Tensor& x) { return Tensors{x * 2.0, x * 3.0 + 1.0}; };
  const integer::Model model = lowered(0, affine_maps);
  CHECK(integer::choices_of(model) == 1);
  for (const uint8_t candidate : {0, 1}) {
    integer::Session session(model, 1);
    const Array choice = Array::full({1, 1}, candidate, DType::u8), images = images_of({1, 4, 4, 4});
    CHECK(same_bytes(session.run(images, choice),
                     integer::evaluate(model, images, choice)[static_cast<size_t>(model.output)]));
  }
  const auto twice = [&](const Tensor& x) {
    const Tensor inner = image_choice(first_of(2), affine_maps(x), 0);
    return Tensors{inner, inner * 2.0};
  };
  CHECK_THROWS_WITH_AS(lowered(0, twice), doctest::Contains("choices themselves"), argument_error);
  const auto three = [&](const Tensor& x) { return Tensors{x, x * 2.0, x * 3.0}; };
  CHECK_THROWS_WITH_AS(lowered(0, three), doctest::Contains("one of 3 affine maps"), argument_error);
  CHECK_THROWS_WITH_AS(lowered(1, affine_maps), doctest::Contains("not chosen by the same gates"),
                       argument_error);
  CHECK_THROWS_WITH_AS(lowered(0,
                               [](const Tensor& x) {
                                 return Tensors{x, relu(x)};
                               }),
                       doctest::Contains("differ in more than an affine map"), argument_error);
}
