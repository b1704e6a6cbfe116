// Small pictures for people: u8 (h, w, 3), red, green, blue.
#pragma once

#include <vector>

#include "../../kernels/array.h"

namespace stairgrad::examples {

/// Values from `low` (black) to `high` (white) as a colour picture; clamped. values: f32 (h, w, 1 or 3).
Array picture_of(const Array& values, double low = 0, double high = 1);

/// Each pixel repeated `factor` times in both directions.
Array enlarge(const Array& image, int factor);

/// The colour of a value in [0, 1], from cold to hot ("turbo", Mikhailov 2019), over `image`: a map such as
/// Grad-CAM's, f32 (h', w') of any size, is stretched bilinearly to the image. `opacity` of the colours at
/// value 1.
Array heat_overlay(const Array& image, const Array& map, double opacity = 0.6);

/// Pictures of one size on a sheet, row by row, `gap` white pixels apart.
Array contact_sheet(const std::vector<Array>& images, int columns, int gap = 2);

}  // namespace stairgrad::examples
