// What the tests of kernels share: sample arrays, every instruction set, every number of threads.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/random.h"
#include "kernels/simd/simd.h"
#include "kernels/threads.h"

namespace stairgrad {

/// Normal values; the same for the same stream.
inline Array sample(Shape shape, DType dtype = DType::f32, uint64_t stream = 0, double scale = 1) {
  return random_normal(shape, Philox(1, stream), scale, dtype);
}

inline Array indices(const std::vector<int32_t>& values, Shape shape) { return Array::of(values, shape); }
inline Array indices(const std::vector<int32_t>& values) { return Array::of(values); }

inline bool same_bits(const Array& a, const Array& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
         (a.size() == 0 || std::memcmp(a.raw(), b.raw(), a.bytes()) == 0);
}

/// The unit in the last place of 1. (bf16 has 8 significant bits.)
inline double epsilon(DType dtype) {
  return dtype == DType::f64 ? 0x1p-52 : dtype == DType::bf16 ? 0x1p-7 : 0x1p-23;
}

/// Every element of `got` is within `ulps` units in the last place of `expected`, where values below `floor`
/// have its unit; NaN equals NaN.
inline void check_close(const Array& got, const std::vector<double>& expected, double ulps,
                        double floor = 0) {
  const std::vector<double> values = got.to_vector();
  REQUIRE(values.size() == expected.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const double value = values[i], wanted = expected[i];
    if (value == wanted || (std::isnan(wanted) && std::isnan(value))) continue;
    const double size = std::max(std::abs(wanted), floor);
    const double unit = std::exp2(size > 0 ? std::ilogb(size) : -1074) * epsilon(got.dtype());
    if (!(std::abs(value - wanted) <= ulps * unit)) {
      FAIL_CHECK(text("element ", i, " of ", name_of(got.dtype()), got.shape(), ": got ", value,
                      ", expected ", wanted, ", ", (value - wanted) / unit, " units apart"));
      return;
    }
  }
  CHECK(true);
}

/// What a sum may be off, in units of sqrt(terms): for f64 the plain sum it is compared with is no better.
inline double sum_ulps(DType dtype) { return dtype == DType::f64 ? 128 : 16; }

/// Runs `body` with the loops of every instruction set of this CPU.
template <class Body>
void for_every_isa(const Body& body) {
  using simd::Isa;
  const auto before = simd::isa();
  for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512, Isa::avx512_vnni}) {
    if (!simd::table_of(isa)) continue;
    CAPTURE(text(simd::name_of(isa)));
    simd::use_isa(isa);
    body();
  }
  simd::use_isa(before);
}

/// Runs `body` for f32, bf16 and f64.
template <class Body>
void for_every_float(const Body& body) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    CAPTURE(text(name_of(dtype)));
    body(dtype);
  }
}

/// The result of `function` is the same, bit for bit, on every instruction set and with 1 to 3 threads.
template <class Function>
void check_reproducible(const Function& function) {
  const int before = threads();
  const Array expected = function();
  for_every_isa([&] {
    for (const int count : {1, 2, 3}) {
      CAPTURE(count);
      set_threads(count);
      CHECK(same_bits(function(), expected));
    }
  });
  set_threads(before);
}

}  // namespace stairgrad
