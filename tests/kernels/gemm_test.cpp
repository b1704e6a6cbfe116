// Matrix products against the definition, in every transposition.
#include "../../kernels/gemm.h"

#include <doctest/doctest.h>

#include "../../kernels/random.h"
#include "../../kernels/threads.h"

using namespace stairgrad;
using namespace stairgrad::kernels;

namespace {

Array noise(const Shape& shape, uint64_t stream, DType type) {
  return cast(random_normal(shape, Philox(11, stream), 1, DType::f64), type);
}

Shape matrix(Shape lead, int64_t rows, int64_t columns, bool transpose) {
  lead.push_back(transpose ? columns : rows);
  lead.push_back(transpose ? rows : columns);
  return lead;
}

/// sum_k a[i, k] * b[k, j] for each of the leading indices.
std::vector<double> by_definition(const Array& a, const Array& b, bool ta, bool tb) {
  const int64_t m = a.dim(ta ? -1 : -2), k = a.dim(ta ? -2 : -1), n = b.dim(tb ? -2 : -1);
  const int64_t batch = a.size() / (m * k);
  const auto x = a.to_vector(), y = b.to_vector();
  std::vector<double> result;
  for (int64_t p = 0; p < batch; ++p)
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (int64_t l = 0; l < k; ++l) {
          const int64_t first_b = b.rank() == a.rank() ? p * k * n : 0;
          sum += x[static_cast<size_t>(p * m * k + (ta ? l * m + i : i * k + l))] *
                 y[static_cast<size_t>(first_b + (tb ? j * k + l : l * n + j))];
        }
        result.push_back(sum);
      }
  return result;
}

double largest_difference(const Array& got, const std::vector<double>& expected) {
  const auto values = got.to_vector();
  REQUIRE(values.size() == expected.size());
  double largest = 0;
  for (size_t i = 0; i < values.size(); ++i) largest = std::max(largest, std::abs(values[i] - expected[i]));
  return largest;
}

}  // namespace

TEST_CASE("matmul in every transposition, type and batch") {
  const std::vector<std::array<int64_t, 3>> sizes = {
      {1, 1, 1}, {2, 3, 4}, {17, 5, 33}, {64, 10, 64}, {90, 70, 110}};
  for (const Shape& lead : {Shape{}, Shape{3}, Shape{2, 5}})
    for (const auto& size : sizes)
      for (const bool ta : {false, true})
        for (const bool tb : {false, true})
          for (const DType type : {DType::f32, DType::f64, DType::bf16}) {
            const int64_t m = size[0], n = size[1], k = size[2];
            CAPTURE(lead);
            CAPTURE(m);
            CAPTURE(n);
            CAPTURE(k);
            CAPTURE(ta);
            CAPTURE(tb);
            CAPTURE(name_of(type));
            const Array a = noise(matrix(lead, m, k, ta), 1, type),
                        b = noise(matrix(lead, k, n, tb), 2, type);
            const double bound = type == DType::f64 ? 1e-12 : type == DType::f32 ? 1e-4 : 0.2;
            const Array c = matmul(a, b, ta, tb);
            CHECK(c.shape() == matrix(lead, m, n, false));
            CHECK(c.dtype() == type);
            CHECK(largest_difference(c, by_definition(a, b, ta, tb)) < bound);
            if (ta || lead.rank() == 0) continue;
            const Array shared = noise(matrix({}, k, n, tb), 3, type);
            CHECK(largest_difference(matmul(a, shared, ta, tb), by_definition(a, shared, ta, tb)) < bound);
          }
}

TEST_CASE("matmul of empty matrices") {
  CHECK(matmul(Array({0, 3}), Array({3, 4})).shape() == Shape{0, 4});
  CHECK(matmul(Array({2, 0}), Array({0, 3})).to_vector() == std::vector<double>(6, 0));
  CHECK(matmul(Array({0, 2, 3}), Array({0, 3, 4})).shape() == Shape{0, 2, 4});
  CHECK(matmul(Array({5, 2, 3}), Array({3, 0})).shape() == Shape{5, 2, 0});
}

TEST_CASE("matmul does not depend on the number of threads") {
  const int before = threads();
  struct Case {
    Shape a, b;
    bool transpose_a, transpose_b;
  };
  for (const Case& c :
       {Case{{40, 30}, {40, 30}, false, true}, Case{{300, 200}, {300, 200}, false, true},
        Case{{9, 30, 20}, {9, 30, 20}, false, true}, Case{{1, 700}, {700, 900}, false, false},
        Case{{1, 700}, {900, 700}, false, true}, Case{{20000, 5}, {20000, 7}, true, false},
        Case{{600, 300}, {300, 70}, false, false}, Case{{300, 600}, {300, 70}, true, false}}) {
    CAPTURE(c.a);
    CAPTURE(c.b);
    for (const DType type : {DType::f32, DType::f64}) {
      const Array a = noise(c.a, 1, type), b = noise(c.b, 2, type);
      const auto product = [&] { return matmul(a, b, c.transpose_a, c.transpose_b).to_vector(); };
      set_threads(1);
      const auto one = product();
      set_threads(2);
      CHECK(product() == one);
      set_threads(before);
    }
  }
}

TEST_CASE("matmul says what is wrong") {
  const auto zeros = [](Shape shape) { return Array::zeros(shape); };
  CHECK_THROWS_WITH_AS(matmul(zeros({2, 3}), zeros({4, 5})),
                       "[matmul] got (2,3) * (4,5): inner extents 3 and 4, expected them equal",
                       argument_error);
  CHECK_THROWS_WITH_AS(
      matmul(zeros({2, 3}), zeros({4, 5}), true, true),
      "[matmul] got (2,3) transposed * (4,5) transposed: inner extents 2 and 5, expected them equal",
      argument_error);
  CHECK_THROWS_AS(matmul(zeros({3}), zeros({3, 2})), argument_error);
  CHECK_THROWS_AS(matmul(zeros({2, 3, 4}), zeros({3, 4, 5})), argument_error);
  CHECK_THROWS_AS(matmul(zeros({2, 3, 4}), zeros({3, 5}), true), argument_error);
  CHECK_THROWS_AS(matmul(zeros({2, 3}), Array::zeros({3, 2}, DType::f64)), argument_error);
  CHECK_THROWS_AS(matmul(Array::zeros({2, 3}, DType::u8), Array::zeros({3, 2}, DType::u8)), argument_error);
}
