// Random changes of brightness, contrast, saturation and hue.
#include <algorithm>
#include <array>
#include <cmath>

#include "transforms.h"

namespace stairgrad::data {
namespace {

using Pixel = std::array<double, 3>;

double grey(const Pixel& p) { return 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2]; }

/// base + factor (pixel - base): 1 changes nothing, 0 gives the base.
Pixel away_from(double base, const Pixel& p, double factor) {
  return {base + factor * (p[0] - base), base + factor * (p[1] - base), base + factor * (p[2] - base)};
}

/// Turns the hue by `turns`, leaving value and saturation.
Pixel turn_hue(const Pixel& p, double turns) {
  const double value = std::max({p[0], p[1], p[2]}), chroma = value - std::min({p[0], p[1], p[2]});
  if (chroma == 0) return p;
  double sextant = value == p[0]   ? (p[1] - p[2]) / chroma
                   : value == p[1] ? (p[2] - p[0]) / chroma + 2
                                   : (p[0] - p[1]) / chroma + 4;
  sextant += 6 * turns;
  Pixel turned;
  for (int c = 0; c < 3; ++c) {
    const double offset = 5 - 2.0 * c + sextant;  // red, green and blue are two sextants apart
    const double k = offset - 6 * std::floor(offset / 6);
    turned[static_cast<size_t>(c)] = value - chroma * std::clamp(std::min(k, 4 - k), 0.0, 1.0);
  }
  return turned;
}

template <class Change>
void for_each_pixel(Array& image, Change change) {
  uint8_t* p = image.data<uint8_t>();
  for (const uint8_t* end = p + image.size(); p < end; p += 3) {
    const Pixel changed = change(Pixel{double(p[0]), double(p[1]), double(p[2])});
    for (size_t c = 0; c < 3; ++c)
      p[c] = static_cast<uint8_t>(std::lrint(std::clamp(changed[c], 0.0, 255.0)));
  }
}

double mean_grey(Array& image) {
  double sum = 0;
  for_each_pixel(image, [&](const Pixel& p) {
    sum += grey(p);
    return p;
  });
  return sum / static_cast<double>(image.size() / 3);
}

}  // namespace

Array colour_jitter(const Array& source, const ColourJitter& jitter, Draws& draws) {
  check(source.rank() == 3 && source.dim(2) == 3 && source.size() > 0, "[colour_jitter] got ", source.shape(),
        ", expected (h, w, 3)");
  Array image = source.clone();
  const auto factor = [&](double range) { return draws.uniform(std::max(0.0, 1 - range), 1 + range); };
  std::array<int, 4> order = {0, 1, 2, 3};
  for (size_t i = 4; i > 1; --i)
    std::swap(order[i - 1], order[static_cast<size_t>(draws.below(static_cast<int64_t>(i)))]);
  for (const int step : order) {
    if (step == 0 && jitter.brightness > 0)
      for_each_pixel(image, [f = factor(jitter.brightness)](const Pixel& p) { return away_from(0, p, f); });
    if (step == 1 && jitter.contrast > 0)
      for_each_pixel(image, [f = factor(jitter.contrast), m = mean_grey(image)](const Pixel& p) {
        return away_from(m, p, f);
      });
    if (step == 2 && jitter.saturation > 0)
      for_each_pixel(image,
                     [f = factor(jitter.saturation)](const Pixel& p) { return away_from(grey(p), p, f); });
    if (step == 3 && jitter.hue > 0)
      for_each_pixel(image,
                     [t = draws.uniform(-jitter.hue, jitter.hue)](const Pixel& p) { return turn_hue(p, t); });
  }
  return image;
}

}  // namespace stairgrad::data
