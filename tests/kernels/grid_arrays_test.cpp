// The grid over arrays equals the scalar functions of grid.h bit for bit, ties and non-numbers included.
#include "../../kernels/grid_arrays.h"

#include "kernel_test.h"

using namespace stairgrad;
using namespace stairgrad::kernels;

namespace {

const std::vector<Grid> grids = {{0.1f, 0, 0, 255},       {0.37f, 3, 0, 15},   {1, 128, 0, 255},
                                 {0x1p-3f, 0, -128, 127}, {0.02f, 0, -7, 7},   {1e-3f, 7.5f, 0, 15},
                                 {3e30f, 0, 0, 255},      {1e-30f, 9, 4, 250}, {0.5f, -3, 0, 1}};

/// Values around the grid, all its ties and their neighbours, and what is not a number.
Array awkward_values(const Grid& g) {
  std::vector<float> values = {0.f, -0.f, NAN, -NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-45f, -1e-45f};
  for (int code = g.lo - 2; code <= g.hi + 2; ++code)
    for (const float offset : {0.f, 0.25f, 0.5f}) {
      const float value = (static_cast<float>(code) + offset - g.zero_point) * g.scale;
      for (const float direction : {-INFINITY, INFINITY}) values.push_back(std::nextafter(value, direction));
      values.push_back(value);
    }
  const Array noise = sample({70001}, DType::f32, 5, 20 * static_cast<double>(g.scale));
  values.insert(values.end(), noise.data<float>(), noise.data<float>() + noise.size());
  return Array::of(values);
}

}  // namespace

TEST_CASE("encode, decode and fake_quantize equal the scalar grid") {
  for_every_isa([] {
    for (const Grid& g : grids) {
      CAPTURE(g.scale);
      CAPTURE(g.zero_point);
      const Array x = awkward_values(g);
      const Array codes = encode(x, g), decoded = decode(codes, g), fake = fake_quantize(x, g);
      CHECK(codes.dtype() == (g.lo < 0 ? DType::s8 : DType::u8));
      const auto values = codes.to_vector();
      int64_t wrong = 0;
      for (int64_t i = 0; i < x.size(); ++i) {
        const int code = grid::encode(x.data<float>()[i], g);
        const float value = grid::decode(code, g);
        wrong += values[static_cast<size_t>(i)] != code;
        wrong += std::memcmp(&value, decoded.data<float>() + i, sizeof value) != 0;
        wrong += std::memcmp(&value, fake.data<float>() + i, sizeof value) != 0;
      }
      CHECK(same_bits(fake_quantize(cast(x, DType::f64), g), cast(fake, DType::f64)));
      const Array narrow = cast(x, DType::bf16), wide = cast(narrow, DType::f32);
      CHECK(same_bits(fake_quantize(narrow, g), cast(fake_quantize(wide, g), DType::bf16)));
      const std::vector<double> doubled = levels(narrow, g, 2).to_vector(), own = encode(wide, g).to_vector();
      for (size_t i = 0; i < own.size(); ++i)
        wrong += doubled[i] != static_cast<float>(bf16(static_cast<float>(2 * (own[i] - g.zero_point))));
      CHECK(wrong == 0);
      CHECK(same_bits(encode(decoded, g), codes));
    }
  });
}

TEST_CASE("encode rounds half to even, saturates, and maps NaN to lo") {
  const Grid g{2, 1, 0, 5};
  const Array x = Array::of<float>({-1, 1, 3, 5, 7, 100, -100, NAN, INFINITY, -INFINITY});
  CHECK(encode(x, g).to_vector() == std::vector<double>{0, 2, 2, 4, 4, 5, 0, 0, 5, 0});
}

TEST_CASE("map_codes looks up every code") {
  std::array<uint8_t, 256> table;
  std::vector<uint8_t> all;
  for (int i = 0; i < 256; ++i) {
    table[static_cast<size_t>(i)] = static_cast<uint8_t>(i * 7 + 3);
    all.push_back(static_cast<uint8_t>(i));
  }
  const Array mapped = map_codes(Array::of(all, {16, 16}), table);
  CHECK(mapped.shape() == Shape{16, 16});
  for (int i = 0; i < 256; ++i) CHECK(mapped.data<uint8_t>()[i] == table[static_cast<size_t>(i)]);
  CHECK(map_codes(Array({0}, DType::u8), table).size() == 0);
}

TEST_CASE("grids over arrays say what is wrong") {
  const Array x = Array::zeros({3});
  CHECK_THROWS_AS(encode(x, {1, 0, -1, 200}), argument_error);
  CHECK_THROWS_AS(encode(x, {1, 0, 3, 2}), argument_error);
  CHECK_THROWS_AS(encode(cast(x, DType::f64), {}), argument_error);
  Array wrong_type({3}, DType::s8), wrong_shape({4}, DType::u8);
  CHECK_THROWS_AS(encode(x, {}, wrong_type), argument_error);
  CHECK_THROWS_AS(encode(x, {}, wrong_shape), argument_error);
  CHECK_THROWS_AS(decode(x, {}), argument_error);
  CHECK_THROWS_AS(fake_quantize(cast(x, DType::s32), {}), argument_error);
  CHECK_THROWS_AS(levels(x, {}, 1), argument_error);
  CHECK_THROWS_AS(map_codes(x, {}), argument_error);
}
