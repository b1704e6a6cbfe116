// The integer grid applied to whole arrays: the functions of grid.h, element by element, vectorised and in
// parallel.
#pragma once

#include "array.h"
#include "grid.h"

namespace stairgrad::kernels {

/// Codes of f32 values: u8 when the grid's codes lie in 0 .. 255, else s8 (-128 .. 127). NaN becomes lo.
/// Throws argument_error when the codes fit neither.
Array encode(const Array& x, const Grid& grid);
/// The same into an existing array of x's shape.
void encode(const Array& x, const Grid& grid, Array& codes);

/// f32 values of u8 or s8 codes.
Array decode(const Array& codes, const Grid& grid);

/// decode(encode(x)) in one pass; x f32, f64 (which is rounded to f32 first), or bf16 (to which the values
/// are rounded).
Array fake_quantize(const Array& x, const Grid& grid);

/// (code - zero_point) * step of every element of x (bf16), as bf16: exact while it needs 8 bits at most.
Array levels(const Array& x, const Grid& grid, float step);

/// table[code] for each u8 code: how a coarser grid reads a site.
Array map_codes(const Array& codes, const std::array<uint8_t, 256>& table);

}  // namespace stairgrad::kernels
