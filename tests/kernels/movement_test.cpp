#include "kernels/movement.h"

#include "kernel_test.h"

using namespace stairgrad;
using kernels::Range;

namespace {

constexpr DType all_types[] = {DType::f32, DType::bf16, DType::f64, DType::u8, DType::s8, DType::s32};

// 0, 1, 2 ... in any type.
Array counting(Shape shape, DType dtype) {
  Array x(shape, dtype);
  dispatch_any(dtype, [&](auto zero) {
    using T = decltype(zero);
    for (int64_t i = 0; i < x.size(); ++i) {
      if constexpr (std::is_same_v<T, bf16>)
        x.data<T>()[i] = bf16(static_cast<float>(i % 100));
      else
        x.data<T>()[i] = static_cast<T>(i % 100);
    }
  });
  return x;
}

using Position = std::vector<int64_t>;

Position position_of(int64_t i, const Shape& shape) {
  Position p(static_cast<size_t>(shape.rank()));
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    p[static_cast<size_t>(axis)] = i % shape[axis];
    i /= shape[axis];
  }
  return p;
}
size_t index_of(const Position& p, const Shape& shape) {
  int64_t i = 0;
  for (int axis = 0; axis < shape.rank(); ++axis) i = i * shape[axis] + p[static_cast<size_t>(axis)];
  return static_cast<size_t>(i);
}

double dot(const Array& a, const Array& b) {
  const std::vector<double> u = a.to_vector(), v = b.to_vector();
  double sum = 0;
  for (size_t i = 0; i < u.size(); ++i) sum += u[i] * v[i];
  return sum;
}

}  // namespace

TEST_CASE("transpose moves every element of every type") {
  const std::vector<std::pair<Shape, std::vector<int>>> cases = {
      {{}, {}},
      {{5}, {0}},
      {{3, 4}, {1, 0}},
      {{2, 3, 4}, {0, 2, 1}},
      {{2, 3, 4}, {2, 0, 1}},
      {{2, 3, 4, 5}, {0, 3, 1, 2}},
      {{2, 3, 4, 5}, {0, 2, 3, 1}},
      {{2, 1, 3, 1, 2, 3}, {5, 4, 3, 2, 1, 0}},
      {{0, 3}, {1, 0}},
      {{70, 300}, {1, 0}},
      {{20, 60, 50}, {1, 0, 2}},
  };
  for (const DType dtype : all_types) {
    for (const auto& [shape, permutation] : cases) {
      const std::string label = text(shape, name_of(dtype));
      CAPTURE(label);
      const Array x = counting(shape, dtype), y = kernels::transpose(x, permutation);
      const std::vector<double> from = x.to_vector(), to = y.to_vector();
      bool equal = true;
      for (int64_t i = 0; i < y.size(); ++i) {
        const Position at = position_of(i, y.shape());
        Position source(at.size());
        for (size_t k = 0; k < at.size(); ++k) source[static_cast<size_t>(permutation[k])] = at[k];
        equal = equal && to[static_cast<size_t>(i)] == from[index_of(source, shape)];
      }
      CHECK(equal);
      for (int k = 0; k < shape.rank(); ++k) CHECK(y.dim(k) == shape[permutation[static_cast<size_t>(k)]]);
    }
  }
  CHECK_THROWS_AS(kernels::transpose(Array({2, 3}), {0}), argument_error);
  CHECK_THROWS_AS(kernels::transpose(Array({2, 3}), {0, 0}), argument_error);
  CHECK_THROWS_AS(kernels::transpose(Array({2, 3}), {0, 2}), argument_error);
}

TEST_CASE("slice picks a strided box and unslice puts it back among zeros") {
  const Shape shape{5, 7, 6};
  const std::vector<std::vector<Range>> boxes = {
      {{0, 5, 1}, {0, 7, 1}, {0, 6, 1}}, {{1, 4, 1}, {0, 7, 1}, {0, 6, 1}},
      {{0, 5, 2}, {1, 7, 3}, {5, 6, 1}}, {{4, 5, 9}, {0, 7, 2}, {0, 6, 4}},
      {{2, 2, 1}, {0, 7, 1}, {0, 6, 1}}, {{0, 5, 1}, {3, 4, 1}, {0, 6, 1}}};
  for (const DType dtype : all_types) {
    for (const std::vector<Range>& box : boxes) {
      const Array x = counting(shape, dtype), y = kernels::slice(x, box), z = kernels::unslice(y, shape, box);
      std::vector<double> picked, zeros(static_cast<size_t>(shape.size()));
      for (int64_t i = 0; i < x.size(); ++i) {
        const Position at = position_of(i, shape);
        bool inside = true;
        for (size_t k = 0; k < 3; ++k)
          inside = inside && at[k] >= box[k].start && at[k] < box[k].stop &&
                   (at[k] - box[k].start) % box[k].step == 0;
        if (!inside) continue;
        picked.push_back(x.to_vector()[static_cast<size_t>(i)]);
        zeros[static_cast<size_t>(i)] = picked.back();
      }
      CHECK(y.to_vector() == picked);
      CHECK(z.to_vector() == zeros);
    }
  }
  CHECK_THROWS_AS(kernels::slice(Array({3}), {{0, 4, 1}}), argument_error);
  CHECK_THROWS_AS(kernels::slice(Array({3}), {{-1, 2, 1}}), argument_error);
  CHECK_THROWS_AS(kernels::slice(Array({3}), {{2, 1, 1}}), argument_error);
  CHECK_THROWS_AS(kernels::slice(Array({3}), {{0, 3, 0}}), argument_error);
  CHECK_THROWS_AS(kernels::slice(Array({3}), {}), argument_error);
  CHECK_THROWS_AS(kernels::unslice(Array({2}), {3}, {{0, 3, 1}}), argument_error);
}

TEST_CASE("pad surrounds with a value") {
  for (const DType dtype : all_types) {
    const Array y = kernels::pad(counting({2, 3}, dtype), {1, 0}, {0, 2}, 7);
    CHECK(y.shape() == Shape{3, 5});
    CHECK(y.to_vector() == std::vector<double>{7, 7, 7, 7, 7, 0, 1, 2, 7, 7, 3, 4, 5, 7, 7});
  }
  CHECK(kernels::pad(Array({0, 2}), {1, 0}, {0, 0}, 1).to_vector() == std::vector<double>{1, 1});
  CHECK_THROWS_AS(kernels::pad(Array({2}), {-1}, {0}), argument_error);
  CHECK_THROWS_AS(kernels::pad(Array({2}), {1, 1}, {0, 0}), argument_error);
}

TEST_CASE("concat joins along an axis what slice takes apart") {
  for (const DType dtype : all_types) {
    const Array x = counting({3, 5, 4}, dtype);
    const std::vector<Range> all = {{0, 3, 1}, {0, 5, 1}, {0, 4, 1}};
    for (int axis = -3; axis < 3; ++axis) {
      Arrays parts;
      const int along = axis < 0 ? axis + 3 : axis;
      for (const auto& [first, last] :
           std::vector<std::pair<int64_t, int64_t>>{{0, 1}, {1, 1}, {1, x.dim(along)}}) {
        std::vector<Range> box = all;
        box[static_cast<size_t>(along)] = {first, last, 1};
        parts.push_back(kernels::slice(x, box));
      }
      CHECK(same_bits(kernels::concat(parts, axis), x));
    }
  }
  CHECK_THROWS_AS(kernels::concat({}, 0), argument_error);
  CHECK_THROWS_AS(kernels::concat({Array({2, 3}), Array({2, 4})}, 0), argument_error);
  CHECK_THROWS_AS(kernels::concat({Array({2}), Array({2}, DType::f64)}, 0), argument_error);
  CHECK_THROWS_AS(kernels::concat({Array({2})}, 1), argument_error);
}

TEST_CASE("index_select picks slices of every type") {
  const Array index = indices({2, 0, 2});
  for (const DType dtype : all_types) {
    const Array x = counting({2, 3, 2}, dtype);
    CHECK(kernels::index_select(x, 1, index).to_vector() ==
          std::vector<double>{4, 5, 0, 1, 4, 5, 10, 11, 6, 7, 10, 11});
    CHECK(kernels::index_select(x, -2, index).shape() == Shape{2, 3, 2});
  }
  CHECK(kernels::index_select(Array({0, 3}), 1, index).shape() == Shape{0, 3});
  CHECK(kernels::index_select(Array({3}), 0, Array({0}, DType::s32)).shape() == Shape{0});
  CHECK_THROWS_AS(kernels::index_select(Array({2}), 0, index), argument_error);
  CHECK_THROWS_AS(kernels::index_select(Array({3}), 0, indices({-1})), argument_error);
  CHECK_THROWS_AS(kernels::index_select(Array({3}), 0, indices({0}, {1, 1})), argument_error);
  CHECK_THROWS_AS(kernels::index_select(Array({3}), 0, Array({1})), argument_error);
}

TEST_CASE("gather picks along the last axis") {
  const Array index = indices({1, 1, 0, 2}, {2, 2});
  for (const DType dtype : all_types)
    CHECK(kernels::gather(counting({2, 3}, dtype), index).to_vector() == std::vector<double>{1, 1, 3, 5});
  CHECK_THROWS_AS(kernels::gather(Array({2, 2}), index), argument_error);
  CHECK_THROWS_AS(kernels::gather(Array({3, 3}), index), argument_error);
  CHECK_THROWS_AS(kernels::gather(Array({2}), index), argument_error);
}

TEST_CASE("index_add and scatter_add are the adjoints of index_select and gather") {
  for_every_float([](DType dtype) {
    // Whole numbers, so that bf16 sums are exact.
    const auto whole = [dtype](Shape shape, uint64_t stream) {
      Array x = sample(shape, DType::f64, stream, 3);
      for (int64_t i = 0; i < x.size(); ++i) x.data<double>()[i] = std::nearbyint(x.data<double>()[i]);
      return cast(x, dtype);
    };
    const Array x = whole({4, 5, 3}, 1), index = indices({4, 0, 0, 2, 4, 4});
    const Array y = whole({4, 6, 3}, 2);
    const Array back = kernels::index_add(y, 1, index, 5);
    CHECK(back.shape() == x.shape());
    CHECK(dot(kernels::index_select(x, 1, index), y) == dot(x, back));

    const Array picks = indices({0, 0, 1, 2, 3, 3, 3, 3}, {2, 4}), u = whole({2, 5}, 3), v = whole({2, 4}, 4);
    CHECK(dot(kernels::gather(u, picks), v) == dot(u, kernels::scatter_add(v, picks, 5)));
  });
  CHECK(kernels::index_add(Array({0, 2}), 0, Array({0}, DType::s32), 3).to_vector() ==
        std::vector<double>(6));
  CHECK_THROWS_AS(kernels::index_add(Array({2}), 0, indices({0}), 3), argument_error);
  CHECK_THROWS_AS(kernels::index_add(Array({1}), 0, indices({3}), 3), argument_error);
  CHECK_THROWS_AS(kernels::scatter_add(Array({2}), indices({0}), 3), argument_error);
  CHECK_THROWS_AS(kernels::scatter_add(Array({1}), indices({-1}), 3), argument_error);
}

TEST_CASE("one_hot") {
  for (const DType dtype : all_types) {
    const Array y = kernels::one_hot(indices({2, 0}), 3, dtype);
    CHECK(y.dtype() == dtype);
    CHECK(y.shape() == Shape{2, 3});
    CHECK(y.to_vector() == std::vector<double>{0, 0, 1, 1, 0, 0});
  }
  CHECK(kernels::one_hot(Array({0}, DType::s32), 3).shape() == Shape{0, 3});
  CHECK_THROWS_AS(kernels::one_hot(indices({3}), 3), argument_error);
  CHECK_THROWS_AS(kernels::one_hot(indices({-1}), 3), argument_error);
}
