#include "pictures.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace stairgrad::examples {

namespace {

uint8_t to_byte(double x) { return static_cast<uint8_t>(std::lround(255 * std::clamp(x, 0.0, 1.0))); }

/// Turbo by its polynomial of degree 5,
/// https://gist.github.com/mikhailov-work/0d177465a8151eb6ede1768d51d476c7.
std::array<double, 3> turbo(double x) {
  static constexpr double coefficients[3][6] = {
      {0.13572138, 4.61539260, -42.66032258, 132.13108234, -152.94239396, 59.28637943},
      {0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604},
      {0.10667330, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973}};
  std::array<double, 3> colour{};
  for (int c = 0; c < 3; ++c) {
    for (int power = 5; power >= 0; --power) colour[c] = colour[c] * x + coefficients[c][power];
  }
  return colour;
}

/// `map` at the place of row y of `rows` and column x of `columns`.
double stretched(const Array& map, int64_t y, int64_t rows, int64_t x, int64_t columns) {
  const int64_t h = map.dim(0), w = map.dim(1);
  const auto place = [](int64_t i, int64_t n, int64_t m) {
    const double at = (static_cast<double>(i) + 0.5) * static_cast<double>(m) / static_cast<double>(n) - 0.5;
    return std::clamp(at, 0.0, static_cast<double>(m - 1));
  };
  const double at_y = place(y, rows, h), at_x = place(x, columns, w);
  const auto y0 = static_cast<int64_t>(at_y), x0 = static_cast<int64_t>(at_x);
  const int64_t y1 = std::min(y0 + 1, h - 1), x1 = std::min(x0 + 1, w - 1);
  const double fy = at_y - static_cast<double>(y0), fx = at_x - static_cast<double>(x0);
  const float* const values = map.data<float>();
  const double top = values[y0 * w + x0] * (1 - fx) + values[y0 * w + x1] * fx;
  const double bottom = values[y1 * w + x0] * (1 - fx) + values[y1 * w + x1] * fx;
  return top * (1 - fy) + bottom * fy;
}

}  // namespace

Array picture_of(const Array& values, double low, double high) {
  check(values.rank() == 3 && (values.dim(2) == 1 || values.dim(2) == 3), "[picture_of] values: got ",
        values.shape(), ", expected (h, w, 1) or (h, w, 3)");
  const int64_t channels = values.dim(2), pixels = values.dim(0) * values.dim(1);
  Array image(Shape{values.dim(0), values.dim(1), 3}, DType::u8);
  const float* const from = values.data<float>();
  uint8_t* const to = image.data<uint8_t>();
  for (int64_t p = 0; p < pixels; ++p) {
    for (int64_t c = 0; c < 3; ++c) {
      to[3 * p + c] = to_byte((from[channels * p + (channels == 3 ? c : 0)] - low) / (high - low));
    }
  }
  return image;
}

Array enlarge(const Array& image, int factor) {
  check(factor >= 1, "[enlarge] factor: got ", factor, ", expected 1 or more");
  const int64_t h = image.dim(0), w = image.dim(1), channels = image.dim(2);
  Array large(Shape{h * factor, w * factor, channels}, DType::u8);
  const uint8_t* const from = image.data<uint8_t>();
  uint8_t* to = large.data<uint8_t>();
  for (int64_t y = 0; y < h * factor; ++y) {
    for (int64_t x = 0; x < w * factor; ++x) {
      to = std::copy_n(from + ((y / factor) * w + x / factor) * channels, channels, to);
    }
  }
  return large;
}

Array heat_overlay(const Array& image, const Array& map, double opacity) {
  check(map.rank() == 2 && map.size() > 0, "[heat_overlay] map: got ", map.shape(), ", expected (h, w)");
  Array result = image.clone();
  const int64_t h = image.dim(0), w = image.dim(1);
  uint8_t* pixel = result.data<uint8_t>();
  for (int64_t y = 0; y < h; ++y) {
    for (int64_t x = 0; x < w; ++x, pixel += 3) {
      const double value = std::clamp(stretched(map, y, h, x, w), 0.0, 1.0);
      const double share = opacity * std::sqrt(value);  // so that weak support shows as well
      const auto colour = turbo(value);
      for (int c = 0; c < 3; ++c) pixel[c] = to_byte(share * colour[c] + (1 - share) * pixel[c] / 255.0);
    }
  }
  return result;
}

Array contact_sheet(const std::vector<Array>& images, int columns, int gap) {
  check(!images.empty() && columns >= 1, "[contact_sheet] got ", images.size(), " images in ", columns,
        " columns");
  const Shape shape = images[0].shape();
  const int64_t h = shape[0], w = shape[1], channels = shape[2];
  const int64_t rows = (static_cast<int64_t>(images.size()) + columns - 1) / columns;
  const int64_t width = columns * (w + gap) - gap;
  Array sheet = Array::full(Shape{rows * (h + gap) - gap, width, channels}, 255, DType::u8);
  for (size_t i = 0; i < images.size(); ++i) {
    check(images[i].shape() == shape, "[contact_sheet] image ", i, ": got ", images[i].shape(), ", expected ",
          shape);
    const int64_t top = static_cast<int64_t>(i) / columns * (h + gap),
                  left = static_cast<int64_t>(i) % columns * (w + gap);
    for (int64_t y = 0; y < h; ++y) {
      std::copy_n(images[i].data<uint8_t>() + y * w * channels, w * channels,
                  sheet.data<uint8_t>() + ((top + y) * width + left) * channels);
    }
  }
  return sheet;
}

}  // namespace stairgrad::examples
