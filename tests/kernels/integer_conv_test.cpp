// Integer convolution: oneDNN's requantisation equals the plain loops of grid.h in every code, whatever the
// options. Meson runs these cases once for each ISA that oneDNN can be limited to.
#include "../../kernels/integer_conv.h"

#include <string_view>
#include <thread>

#include "../../kernels/allocator.h"
#include "kernel_test.h"

using namespace stairgrad;
using namespace stairgrad::kernels;

namespace {

/// Numbers drawn one after another.
class Draw {
 public:
  explicit Draw(uint64_t seed) : rng_(seed) {}
  int64_t between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(rng_.below(next_++, static_cast<uint64_t>(high - low + 1)));
  }
  bool coin() { return between(0, 1) == 1; }
  double normal() { return rng_.normal(next_++); }
  template <class T>
  T one_of(std::initializer_list<T> choices) {
    return choices.begin()[between(0, static_cast<int64_t>(choices.size()) - 1)];
  }

 private:
  Philox rng_;
  uint64_t next_ = 0;
};

template <class T>
Array codes(Draw& draw, const Shape& shape, int low, int high) {
  Array result(shape, dtype_of<T>);
  for (int64_t i = 0; i < shape.size(); ++i) result.data<T>()[i] = static_cast<T>(draw.between(low, high));
  return result;
}

/// b and m that bring sums of typical size into the range of codes, and now and then far out of it.
void draw_scales(Draw& draw, IntegerConvSpec& spec, int largest_weight) {
  const int64_t channels = spec.weights.dim(0);
  const double taps = static_cast<double>(spec.weights.size()) / static_cast<double>(channels);
  const double spread = 150.0 * largest_weight * std::sqrt(taps);
  spec.b = Array({channels});
  spec.m = Array({channels});
  for (int64_t c = 0; c < channels; ++c) {
    double b = draw.normal() * spread, m = 100 / spread * draw.normal();
    if (draw.between(0, 15) == 0) b *= 1e6;
    if (draw.between(0, 15) == 0) m = draw.coin() ? 0x1p-40 : -0x1p-40;
    if (draw.between(0, 15) == 0) m *= 1e6;
    if (draw.between(0, 15) == 0) {  // ties: m is a power of two
      b = std::round(b);
      m = 0x1p-6;
    }
    spec.b.data<float>()[c] = static_cast<float>(b);
    spec.m.data<float>()[c] = static_cast<float>(m);
  }
}

IntegerConvSpec draw_spec(Draw& draw) {
  IntegerConvSpec spec;
  const int64_t groups = draw.one_of<int64_t>({1, 1, 1, 2, 3, 0});  // 0: depthwise
  const int64_t ic =
      groups == 0 ? draw.between(1, 70) : groups * draw.one_of<int64_t>({1, 3, 4, 5, 8, 16, 33});
  const int64_t oc = groups == 0 ? ic : groups * draw.one_of<int64_t>({1, 2, 7, 8, 16, 24, 33});
  const int64_t kh = draw.one_of<int64_t>({1, 1, 2, 3, 3, 5}), kw = draw.coin() ? kh : draw.between(1, 4);
  spec.conv.groups = groups == 0 ? ic : groups;
  spec.conv.stride = {draw.between(1, 3), draw.between(1, 3)};
  spec.conv.dilation = {draw.one_of<int64_t>({1, 1, 2}), draw.one_of<int64_t>({1, 1, 2})};
  for (int64_t& padding : spec.conv.padding) padding = draw.between(0, 2);
  const int64_t reach_y = (kh - 1) * spec.conv.dilation[0] + 1,
                reach_x = (kw - 1) * spec.conv.dilation[1] + 1;
  const auto fitting = [&](int64_t reach, size_t axis) {
    const int64_t padding = spec.conv.padding[2 * axis] + spec.conv.padding[2 * axis + 1];
    return draw.between(std::max<int64_t>(1, reach - padding), std::max<int64_t>(1, reach - padding) + 13);
  };
  spec.src = {draw.between(1, 3), fitting(reach_y, 0), fitting(reach_x, 1), ic};
  spec.src_zero_point = draw.coin() ? 0 : static_cast<int>(draw.between(1, 255));
  const int largest = draw.one_of({7, 64, 127, 128});
  spec.weights = codes<int8_t>(draw, {oc, kh, kw, ic / spec.conv.groups}, -largest, std::min(largest, 127));
  draw_scales(draw, spec, largest);
  spec.requantise = draw.between(0, 3) > 0;
  spec.lo = draw.one_of({0, 0, 0, 1, 17});
  spec.hi = std::max(spec.lo, draw.one_of({255, 255, 15, 200, 18}));
  spec.skip = draw.coin();
  if (!spec.requantise && draw.coin()) spec.low = 0, spec.high = static_cast<float>(draw.between(1, 300));
  spec.float_skip = !spec.requantise && !spec.skip && draw.coin();
  spec.skip_ratio = static_cast<float>(draw.one_of<double>({1, 0.37, -0.8, 2.9}));
  return spec;
}

std::string describe(const IntegerConvSpec& s) {
  return text(s.src, '*', s.weights.shape(), " stride ", s.conv.stride[0], 'x', s.conv.stride[1], " padding ",
              s.conv.padding[0], ',', s.conv.padding[1], ',', s.conv.padding[2], ',', s.conv.padding[3],
              " dilation ", s.conv.dilation[0], 'x', s.conv.dilation[1], " groups ", s.conv.groups,
              " zero point ", s.src_zero_point, " range ", s.lo, "..", s.hi, s.skip ? " skip" : "",
              s.requantise ? "" : " f32");
}

/// dst before a run: the skip, where that has the result's type.
Array fresh_dst(const IntegerConvSpec& spec, Draw draw) {
  const Shape shape = conv2d_shape(spec.src, spec.weights.shape(), spec.conv);
  if (spec.requantise) return codes<uint8_t>(draw, shape, 0, 255);
  Array values(shape);
  for (int64_t i = 0; i < shape.size(); ++i)
    values.data<float>()[i] = static_cast<float>(100 * draw.normal());
  return values;
}

/// The skip of a result that is of another type.
Array separate_skip(const IntegerConvSpec& spec, Draw draw) {
  if (!spec.skip || spec.requantise) return {};
  return codes<uint8_t>(draw, conv2d_shape(spec.src, spec.weights.shape(), spec.conv), 0, 255);
}

/// Every kernel on every instruction set against plain loops; our own also in parts.
void check_equal_to_reference(const IntegerConvSpec& spec, Draw& draw) {
  const Array src = codes<uint8_t>(draw, spec.src, 0, 255), skip = separate_skip(spec, draw);
  const Array start = fresh_dst(spec, draw);
  Array expected = start.clone();
  integer_conv_reference(spec, src, expected, skip);
  CAPTURE(describe(spec));
  const auto is_equal = [&](IntegerKernel kernel) {
    const IntegerConv conv(spec, kernel);
    CAPTURE(std::string(conv.implementation()));
    Array got = start.clone();
    conv.run(src, got, skip);
    CHECK(same_bits(got, expected));
  };
  is_equal(IntegerKernel::onednn);
  const Array given = skip.has_value() ? skip : start;
  for (const int shares : {2, 3}) {
    const IntegerConv conv(spec, IntegerKernel::onednn, shares);
    Array in_parts(start.shape(), start.dtype());
    for (int share = 0; share < shares; ++share) {
      Array scratch({static_cast<int64_t>(conv.scratch_bytes())}, DType::u8);
      conv.run({src.raw(), in_parts.raw(), given.raw(), scratch.raw()}, share, shares);
    }
    CHECK(same_bits(in_parts, expected));
  }
  for_every_isa([&] {
    is_equal(IntegerKernel::own);
    const IntegerConv conv(spec, IntegerKernel::own);
    Array aside(start.shape(), start.dtype());
    const Array before = skip.has_value() ? skip : start;
    for (const int shares : {1, 2, 3}) {
      for (int share = 0; share < shares; ++share) {
        Array scratch({static_cast<int64_t>(conv.scratch_bytes())}, DType::u8);
        conv.run({src.raw(), aside.raw(), before.raw(), scratch.raw()}, share, shares);
      }
      CHECK(same_bits(aside, expected));
    }
  });
}

}  // namespace

TEST_CASE("integer_conv by hand") {
  IntegerConvSpec spec;
  spec.src = {1, 1, 2, 1};
  spec.conv.padding = {0, 0, 1, 0};
  spec.src_zero_point = 10;
  spec.weights = Array::of<int8_t>({-1, 2}, {1, 1, 2, 1});
  spec.b = Array::of<float>({-10});  // -zero_point * sum(w)
  spec.m = Array::of<float>({0.25f});
  spec.hi = 20;
  spec.skip = true;
  spec.skip_ratio = 0.5f;
  const Array src = Array::of<uint8_t>({12, 40}, {1, 1, 2, 1});
  // sums -10 + 24 and -12 + 80; t = 1 and 14.5; with the skip 2.5 and 22; half to even, upper end.
  for (const bool reference : {false, true}) {
    Array dst = Array::of<uint8_t>({3, 15}, {1, 1, 2, 1});
    if (reference)
      integer_conv_reference(spec, src, dst);
    else
      IntegerConv(spec).run(src, dst);
    CHECK(dst.to_vector() == std::vector<double>{2, 20});
  }
}

TEST_CASE("integer_conv equals plain loops for random specs") {
  Draw draw(1);
  for (int trial = 0; trial < 400; ++trial) check_equal_to_reference(draw_spec(draw), draw);
}

TEST_CASE("integer_conv equals plain loops where sums are large") {
  Draw draw(2);
  for (const auto& [ic, oc, k] :
       {std::array<int64_t, 3>{512, 16, 3}, {700, 33, 1}, {128, 64, 3}, {3, 64, 7}}) {
    for (const int sign : {1, -1}) {
      IntegerConvSpec spec;
      spec.src = {1, 8, 8, ic};
      spec.conv.padding = {1, 1, 1, 1};
      spec.weights = sign > 0 ? codes<int8_t>(draw, {oc, k, k, ic}, 100, 127)
                              : codes<int8_t>(draw, {oc, k, k, ic}, -128, -100);
      draw_scales(draw, spec, 127);
      for (int64_t c = 0; c < oc; ++c) spec.m.data<float>()[c] = sign * 1e-6f;
      check_equal_to_reference(spec, draw);
      spec.requantise = false;
      check_equal_to_reference(spec, draw);
    }
  }
}

TEST_CASE("integer_conv of a residual network's layers") {
  Draw draw(3);
  struct Layer {
    Shape src, weights;
    int64_t stride, padding, groups;
  };
  const std::vector<Layer> layers = {
      {{2, 32, 32, 3}, {16, 3, 3, 3}, 1, 1, 1},   {{2, 28, 28, 1}, {16, 3, 3, 1}, 1, 1, 1},
      {{2, 32, 32, 16}, {32, 3, 3, 16}, 2, 1, 1}, {{2, 8, 8, 64}, {64, 3, 3, 64}, 1, 1, 1},
      {{1, 56, 56, 64}, {64, 3, 3, 64}, 1, 1, 1}, {{1, 14, 14, 256}, {64, 1, 1, 256}, 1, 0, 1},
      {{2, 14, 14, 96}, {96, 3, 3, 1}, 2, 1, 96}};
  for (const Layer& layer : layers) {
    for (const bool skip : {false, true}) {
      IntegerConvSpec spec;
      spec.src = layer.src;
      spec.conv = Conv2dOptions::with(layer.stride, layer.padding, layer.groups);
      spec.weights = codes<int8_t>(draw, layer.weights, -127, 127);
      draw_scales(draw, spec, 127);
      spec.skip = skip;
      spec.skip_ratio = 0.71f;
      spec.hi = skip ? 255 : 15;
      check_equal_to_reference(spec, draw);
    }
  }
}

TEST_CASE("integer_conv depends neither on threads nor on the batch") {
  Draw draw(4);
  const int before = threads();
  for (int trial = 0; trial < 20; ++trial) {
    const IntegerConvSpec spec = draw_spec(draw);
    CAPTURE(describe(spec));
    const Array src = codes<uint8_t>(draw, spec.src, 0, 255);
    const Array start = fresh_dst(spec, draw), skip = separate_skip(spec, draw);
    Array one = start.clone(), two = start.clone(), other = start.clone(), aside = start.clone();
    set_threads(1);
    IntegerConv(spec).run(src, one, skip);
    set_threads(2);
    const IntegerConv conv(spec);
    conv.run(src, two, skip);
    set_threads(1);
    conv.run(src, other, skip);  // made for two threads, run by one
    set_threads(before);
    std::thread worker([&] { conv.run(src, aside, skip); });
    Array meanwhile = start.clone();
    conv.run(src, meanwhile, skip);
    worker.join();
    CHECK(same_bits(one, two));
    CHECK(same_bits(one, other));
    CHECK(same_bits(one, aside));
    CHECK(same_bits(one, meanwhile));

    IntegerConvSpec single = spec;
    single.src[0] = 1;
    Array first = start.slice(0, 1).clone();
    IntegerConv(single).run(src.slice(0, 1), first, skip.has_value() ? skip.slice(0, 1) : skip);
    CHECK(same_bits(first, one.slice(0, 1)));
  }
}

TEST_CASE("integer_conv with other constants: as if made for them, on the same packed weights") {
  Draw draw(11);
  for (int trial = 0; trial < 30; ++trial) {
    const IntegerConvSpec spec = draw_spec(draw);
    CAPTURE(describe(spec));
    IntegerConvSpec other = spec;
    draw_scales(draw, other, 60);
    other.src_zero_point = static_cast<int>(draw.between(0, 255));
    const Array src = codes<uint8_t>(draw, spec.src, 0, 255);
    const Array start = fresh_dst(spec, draw), skip = separate_skip(spec, draw);
    const auto run = [&](const IntegerConv& conv) {
      Array dst = start.clone();
      conv.run(src, dst, skip);
      return dst;
    };
    const IntegerConv conv(spec);
    const Array before = run(conv);
    const IntegerConv changed(conv, other.b, other.m, other.src_zero_point);
    CHECK(same_bits(run(changed), run(IntegerConv(other))));
    CHECK(same_bits(run(conv), before));
  }
  IntegerConvSpec wide;
  wide.src = {1, 8, 8, 64};
  wide.weights = codes<int8_t>(draw, {64, 3, 3, 64}, -7, 7);
  draw_scales(draw, wide, 7);
  const IntegerConv conv(wide);
  const size_t before = memory_stats().in_use;
  const IntegerConv changed(conv, wide.b, wide.m, 3);
  if (std::string_view(conv.implementation()).starts_with("own"))
    CHECK(memory_stats().in_use - before < wide.weights.bytes() / 4);
  CHECK_THROWS_AS(IntegerConv(conv, wide.b.slice(0, 3), wide.m, 0), argument_error);
}

TEST_CASE("integer_conv where some results see padding alone") {
  Draw draw(5);
  const auto check = [&](const Shape& src, const Shape& weights, const Conv2dOptions& options) {
    IntegerConvSpec spec;
    spec.src = src;
    spec.weights = codes<int8_t>(draw, weights, -64, 64);
    spec.conv = options;
    draw_scales(draw, spec, 64);
    check_equal_to_reference(spec, draw);
  };
  check({3, 3, 9, 3}, {7, 1, 1, 3}, {{3, 3}, {2, 0, 0, 0}, {1, 1}, 1});
  check({2, 1, 3, 33}, {24, 2, 2, 33}, {{2, 1}, {1, 1, 1, 0}, {2, 1}, 1});
  check({1, 9, 1, 8}, {8, 2, 2, 8}, {{1, 1}, {0, 0, 1, 1}, {1, 2}, 1});
}

TEST_CASE("integer_conv of nothing") {
  IntegerConvSpec spec;
  spec.src = {0, 4, 4, 3};
  spec.weights = Array::zeros({2, 3, 3, 3}, DType::s8);
  spec.b = spec.m = Array::zeros({2});
  Array dst({0, 2, 2, 2}, DType::u8);
  CHECK_NOTHROW(IntegerConv(spec).run(Array(spec.src, DType::u8), dst));
  spec.src = {1, 4, 4, 3};  // all weights zero: every code is lo
  spec.lo = 3;
  dst = Array({1, 2, 2, 2}, DType::u8);
  IntegerConv(spec).run(Array::full(spec.src, 9, DType::u8), dst);
  CHECK(dst.to_vector() == std::vector<double>(8, 3));
}

TEST_CASE("integer_conv takes as many taps as the weights leave room for in 32 bits") {
  constexpr int64_t depth = 80'000;  // 80,000 * 255 * 128 > 2^31
  IntegerConvSpec spec;
  spec.src = {1, 1, 1, depth};
  spec.weights = Array::full({2, 1, 1, depth}, 1, DType::s8);
  std::fill_n(spec.weights.data<int8_t>() + depth, depth, int8_t{-100});
  spec.b = Array::zeros({2});
  spec.m = Array::full({2}, 1);
  spec.requantise = false;
  const Array src = Array::full(spec.src, 255, DType::u8);
  for (const IntegerKernel kernel : {IntegerKernel::fastest, IntegerKernel::reference}) {
    Array dst({1, 1, 1, 2});
    IntegerConv(spec, kernel).run(src, dst);
    CHECK(dst.to_vector() == std::vector<double>{255.0 * depth, -255.0 * 100 * depth});
  }
  std::fill_n(spec.weights.data<int8_t>() + depth, depth, int8_t{-106});
  CHECK_FALSE(sums_fit(spec.weights));
  CHECK_THROWS_WITH_AS(IntegerConv{spec}, doctest::Contains("whose sums may pass 2^31"), argument_error);
}

TEST_CASE("integer_conv says what is wrong") {
  IntegerConvSpec good;
  good.src = {1, 4, 4, 2};
  good.weights = Array::zeros({3, 3, 3, 2}, DType::s8);
  good.b = good.m = Array::zeros({3});
  const auto message = [&](auto change) {
    IntegerConvSpec spec = good;
    change(spec);
    try {
      const IntegerConv conv(spec);
    } catch (const argument_error& e) {
      return std::string(e.what());
    }
    return std::string("nothing was thrown");
  };
  const auto has = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  CHECK(has(message([](auto& s) {
              s.weights = Array::zeros({3, 3, 3, 2});
            }),
            "weights: got f32, expected s8"));
  CHECK(has(message([](auto& s) { s.b = Array::zeros({2}); }), "b: got f32(2), expected f32(3)"));
  CHECK(has(message([](auto& s) { s.m = Array::full({3}, NAN); }), "m: got nan in channel 0"));
  CHECK(has(message([](auto& s) { s.src_zero_point = 256; }), "src_zero_point: got 256"));
  CHECK(has(message([](auto& s) { s.lo = 20, s.hi = 10; }), "range: got 20 to 10"));
  CHECK(has(message([](auto& s) { s.skip = true, s.skip_ratio = NAN; }), "skip: got the ratio nan"));
  CHECK(has(message([](auto& s) { s.float_skip = true; }), "float_skip: got a result in codes"));
  CHECK(has(message([](auto& s) { s.low = 1, s.high = 0; }), "range: got 1 to 0"));
  CHECK(has(message([](auto& s) { s.src = {1, 4, 4, 3}; }), "expected ic / groups = 3"));

  const IntegerConv conv(good);
  const Array src = Array::zeros(good.src, DType::u8);
  Array dst({1, 2, 2, 3}, DType::u8), f32({1, 2, 2, 3}), small({1, 2, 2, 2}, DType::u8);
  CHECK_THROWS_WITH_AS(conv.run(src, f32), "[integer_conv] dst: got f32(1,2,2,3), expected u8(1,2,2,3)",
                       argument_error);
  CHECK_THROWS_AS(conv.run(src, small), argument_error);
  CHECK_THROWS_AS(conv.run(Array::zeros({1, 4, 4, 1}, DType::u8), dst), argument_error);
  CHECK_NOTHROW(conv.run(src, dst));
}

TEST_CASE("the integer self-check sees whether pairs saturate") {
  // Limited to these, oneDNN multiplies by vpmaddubsw, which saturates.
  const char* isa = std::getenv("ONEDNN_MAX_CPU_ISA");
  const std::string limit = isa ? isa : "";
  if (limit == "AVX2" || limit == "AVX512_CORE")
    CHECK_FALSE(integer_self_check());
  else if (limit == "AVX512_CORE_VNNI")
    CHECK_NOTHROW(integer_self_check());
}
