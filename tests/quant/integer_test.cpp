// The integer runtime and its oracle.
#include <doctest/doctest.h>
#include <malloc.h>

#include <atomic>
#include <cmath>
#include <thread>

#include "../../autograd/ops.h"
#include "../../autograd/recorder.h"
#include "../../kernels/allocator.h"
#include "../../kernels/threads.h"
#include "../../quant/integer/attribution.h"
#include "../../quant/integer/model_file.h"
#include "../../quant/integer/reference.h"
#include "../../quant/integer/session.h"
#include "../folder.h"
#include "deployed.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace integer = stairgrad::quant::integer;

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
