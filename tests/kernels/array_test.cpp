#include "kernels/array.h"

#include <limits>

#include "kernel_test.h"

using namespace stairgrad;

TEST_CASE("an array knows its type") {
  const Array x = Array::of<float>({1, 2, 3});
  CHECK(x.data<float>()[1] == 2);
  CHECK_THROWS_AS(x.data<double>(), argument_error);
  CHECK_THROWS_AS(x.data<int32_t>(), argument_error);
  CHECK_THROWS_AS(Array().raw(), argument_error);
  CHECK_THROWS_AS(x.without_value().data<float>(), argument_error);
  CHECK(x.without_value().shape() == Shape{3});
  CHECK_FALSE(x.without_value().has_value());
}

TEST_CASE("arrays of given values") {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64, DType::u8, DType::s8, DType::s32}) {
    CHECK(Array::full({2, 2}, 3, dtype).to_vector() == std::vector<double>{3, 3, 3, 3});
    CHECK(Array::zeros({2}, dtype).to_vector() == std::vector<double>{0, 0});
    CHECK(Array::scalar(5, dtype).item() == 5);
    CHECK(Array::zeros({3, 0}, dtype).to_vector().empty());
  }
  CHECK_THROWS_AS(Array::of<float>({1, 2}, {3}), argument_error);
  CHECK_THROWS_AS(Array::zeros({2}).item(), argument_error);
}

TEST_CASE("memory is aligned to 64 bytes") {
  for (const int64_t n : {0, 1, 7, 1000, 1 << 20})
    CHECK(reinterpret_cast<uintptr_t>(Array({n}).raw()) % 64 == 0);
}

TEST_CASE("reshape and slice are views of the same memory") {
  Array x = Array::of<float>({0, 1, 2, 3, 4, 5}, {3, 2});
  Array rows = x.slice(1, 2);
  CHECK(rows.shape() == Shape{2, 2});
  CHECK(rows.to_vector() == std::vector<double>{2, 3, 4, 5});
  CHECK(rows.slice(1, 1).to_vector() == std::vector<double>{4, 5});
  CHECK(x.slice(3, 0).size() == 0);
  rows.data<float>()[0] = 9;
  CHECK(x.to_vector()[2] == 9);
  CHECK(x.reshape({6}).shares_memory_with(rows));
  CHECK_FALSE(x.clone().shares_memory_with(x));
  CHECK_THROWS_AS(x.slice(2, 2), argument_error);
  CHECK_THROWS_AS(x.slice(-1, 1), argument_error);
  CHECK_THROWS_AS(x.slice(0, -1), argument_error);
  CHECK_THROWS_AS(Array::scalar(1).slice(0, 1), argument_error);
  CHECK_THROWS_AS(x.reshape({5}), argument_error);
}

TEST_CASE("versions count changes of the memory, seen by every view") {
  Array x = Array::zeros({4});
  const Array view = x.slice(1, 2);
  CHECK(view.version() == 0);
  x.bump_version();
  CHECK(view.version() == 1);
  x.assign(Array::full({4}, 2));
  CHECK(view.version() == 2);
  CHECK(view.to_vector() == std::vector<double>{2, 2});
  CHECK(x.clone().version() == 0);
  CHECK_THROWS_AS(x.assign(Array::zeros({3})), argument_error);
  CHECK_THROWS_AS(x.assign(Array::zeros({4}, DType::f64)), argument_error);
}

TEST_CASE("an array knows whether it is the only one") {
  Array x = Array::zeros({4});
  CHECK(x.is_unique());
  {
    const Array view = x.reshape({2, 2});
    CHECK_FALSE(x.is_unique());
  }
  CHECK(x.is_unique());
}

TEST_CASE("bf16 rounds to nearest even and keeps NaN, infinity and subnormals") {
  CHECK(static_cast<float>(bf16(1.0f)) == 1.0f);
  CHECK(bf16(1.00390625f).bits == 0x3f80);  // half way to the next: the even one below
  CHECK(bf16(1.01171875f).bits == 0x3f82);  // half way: the even one above
  CHECK(bf16(1.00390637f).bits == 0x3f81);  // just above half way
  CHECK(bf16(3.4e38f).bits == 0x7f80);      // beyond the largest: infinity
  CHECK(bf16(-std::numeric_limits<float>::infinity()).bits == 0xff80);
  CHECK(bf16(std::bit_cast<float>(0x00018000u)).bits == 0x0002);
  for (const uint32_t nan : {0x7f800001u, 0x7fffffffu, 0xffffffffu, 0xff800001u})
    CHECK(std::isnan(static_cast<float>(bf16(std::bit_cast<float>(nan)))));
}

TEST_CASE("cast equals the scalar conversion for every pattern of bits") {
  Array all({1 << 16}, DType::bf16);
  for (uint32_t i = 0; i < 1 << 16; ++i) all.data<bf16>()[i].bits = static_cast<uint16_t>(i);
  Array floats({(1 << 16) * 9 + 3});  // around every bf16, and odd in number
  for (int64_t i = 0; i < floats.size(); ++i) {
    const auto upper = static_cast<uint32_t>(i / 9 % 65536) << 16;
    constexpr uint32_t lower[] = {0, 1, 0x3fff, 0x7fff, 0x8000, 0x8001, 0xc000, 0xfffe, 0xffff};
    floats.data<float>()[i] = std::bit_cast<float>(upper | lower[i % 9]);
  }
  for_every_isa([&] {
    const Array wide = cast(all, DType::f32), narrow = cast(floats, DType::bf16);
    bool widened = true, narrowed = true;
    for (int64_t i = 0; i < all.size(); ++i)
      widened = widened && std::bit_cast<uint32_t>(wide.data<float>()[i]) == static_cast<uint32_t>(i) << 16;
    for (int64_t i = 0; i < floats.size(); ++i)
      narrowed = narrowed && narrow.data<bf16>()[i].bits == bf16(floats.data<float>()[i]).bits;
    CHECK(widened);
    CHECK(narrowed);
  });
}

TEST_CASE("cast between the other types") {
  const Array x = Array::of<float>({-1.5f, 0, 2.25f});
  for_every_float([&](DType dtype) { CHECK(cast(x, dtype).to_vector() == x.to_vector()); });
  CHECK(cast(x, DType::f32).shares_memory_with(x));
  CHECK(cast(indices({-3, 70000}), DType::f32).to_vector() == std::vector<double>{-3, 70000});
  CHECK(cast(Array::full({2}, 200, DType::u8), DType::bf16).to_vector() == std::vector<double>{200, 200});
  CHECK_THROWS_AS(cast(x, DType::u8), argument_error);
}

TEST_CASE("shapes") {
  const Shape s{2, 3, 4};
  CHECK(s.size() == 24);
  CHECK(s[-1] == 4);
  CHECK(s.back() == 4);
  CHECK(Shape{}.size() == 1);
  CHECK(text(s) == "(2,3,4)");
  CHECK(s != Shape{2, 3});
  CHECK_THROWS_AS(s[3], argument_error);
  CHECK_THROWS_AS(s[-4], argument_error);
  CHECK_THROWS_AS((Shape{1, 1, 1, 1, 1, 1, 1}), argument_error);
  CHECK_THROWS_AS(Shape{-1}, argument_error);
}
