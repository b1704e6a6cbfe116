#include "grid_arrays.h"

#include "simd/simd.h"
#include "threads.h"

namespace stairgrad::kernels {
namespace {

constexpr int64_t grain = 1 << 15;

DType code_type(const char* op, const Grid& g) {
  const bool fits_u8 = g.lo >= 0 && g.hi <= 255, fits_s8 = g.lo >= -128 && g.hi <= 127;
  check(g.lo <= g.hi && (fits_u8 || fits_s8), "[", op, "] grid: got the codes ", g.lo, " to ", g.hi,
        ", expected a range within 0 to 255 or -128 to 127");
  return fits_u8 ? DType::u8 : DType::s8;
}

void check_type(const char* op, const Array& x, DType type) {
  check(x.dtype() == type, "[", op, "] x: got ", name_of(x.dtype()), ", expected ", name_of(type),
        "; convert it with cast");
}

}  // namespace

void encode(const Array& x, const Grid& grid, Array& codes) {
  const DType type = code_type("encode", grid);
  check_type("encode", x, DType::f32);
  check(codes.shape() == x.shape() && codes.dtype() == type, "[encode] codes: got ", name_of(codes.dtype()),
        codes.shape(), ", expected ", name_of(type), x.shape(), " for the codes ", grid.lo, " to ", grid.hi);
  const float inverse = grid::inverse(grid.scale);
  const float* from = x.data<float>();
  const simd::GridLoops& loops = simd::table().grid;
  const auto run = [&](auto* to, auto loop) {
    parallel_for(x.size(), grain, [&](int64_t begin, int64_t end) {
      loop(from + begin, to + begin, end - begin, grid, inverse);
    });
  };
  type == DType::u8 ? run(codes.data<uint8_t>(), loops.encode_u8)
                    : run(codes.data<int8_t>(), loops.encode_s8);
}

Array encode(const Array& x, const Grid& grid) {
  Array codes(x.shape(), code_type("encode", grid));
  encode(x, grid, codes);
  return codes;
}

Array decode(const Array& codes, const Grid& grid) {
  Array y(codes.shape());
  float* to = y.data<float>();
  const simd::GridLoops& loops = simd::table().grid;
  const auto run = [&](const auto* from, auto loop) {
    parallel_for(codes.size(), grain,
                 [&](int64_t begin, int64_t end) { loop(from + begin, to + begin, end - begin, grid); });
  };
  if (codes.dtype() == DType::s8)
    run(codes.data<int8_t>(), loops.decode_s8);
  else
    run(codes.data<uint8_t>(), loops.decode_u8);
  return y;
}

Array fake_quantize(const Array& x, const Grid& grid) {
  if (x.dtype() == DType::f64) return cast(fake_quantize(cast(x, DType::f32), grid), DType::f64);
  if (x.dtype() == DType::bf16) return levels(x, grid, grid.scale);
  check_type("fake_quantize", x, DType::f32);
  const float inverse = grid::inverse(grid.scale);
  Array y(x.shape());
  const float* from = x.data<float>();
  float* to = y.data<float>();
  const auto loop = simd::table().grid.fake_quantize;
  parallel_for(x.size(), grain, [&](int64_t begin, int64_t end) {
    loop(from + begin, to + begin, end - begin, grid, inverse);
  });
  return y;
}

Array levels(const Array& x, const Grid& grid, float step) {
  check_type("levels", x, DType::bf16);
  const float inverse = grid::inverse(grid.scale);
  Array y(x.shape(), DType::bf16);
  const bf16* from = x.data<bf16>();
  bf16* to = y.data<bf16>();
  const auto loop = simd::table().grid.levels_b16;
  parallel_for(x.size(), grain, [&](int64_t begin, int64_t end) {
    loop(from + begin, to + begin, end - begin, grid, inverse, step);
  });
  return y;
}

Array map_codes(const Array& codes, const std::array<uint8_t, 256>& table) {
  Array mapped(codes.shape(), DType::u8);
  const uint8_t* from = codes.data<uint8_t>();
  uint8_t* to = mapped.data<uint8_t>();
  parallel_for(codes.size(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] = table[from[i]];
  });
  return mapped;
}

}  // namespace stairgrad::kernels
