#include <algorithm>
#include <cmath>
#include <numbers>

#include "../../kernels/random.h"
#include "sets.h"

namespace stairgrad::data {

Dataset synthetic(const std::string&, bool train) {
  constexpr int64_t side = 32, channels = 3, classes = 10;
  const int64_t count = train ? 10000 : 2000;
  Dataset dataset;
  dataset.name = "synthetic";
  dataset.image_shape = {side, side, channels};
  for (int64_t k = 0; k < classes; ++k) dataset.class_names.push_back(text("grating ", k));
  for (int64_t i = 0; i < count; ++i) dataset.labels.push_back(static_cast<int32_t>(i % classes));
  const uint64_t seed = stream_of(train ? "synthetic train" : "synthetic test");
  dataset.image = [seed](int64_t i) {
    const Philox rng(seed, static_cast<uint64_t>(i));
    const double angle = std::numbers::pi * static_cast<double>(i % classes) / classes;
    const double frequency = 0.5 + 0.4 * rng.uniform(0), phase = 2 * std::numbers::pi * rng.uniform(1);
    const double dx = frequency * std::cos(angle), dy = frequency * std::sin(angle);
    Array image({side, side, channels}, DType::u8);
    uint8_t* pixel = image.data<uint8_t>();
    for (int64_t y = 0; y < side; ++y)
      for (int64_t x = 0; x < side; ++x)
        for (int64_t c = 0; c < channels; ++c) {
          const double tint = std::cos(angle + 2 * static_cast<double>(c));
          const double wave = std::sin(dx * static_cast<double>(x) + dy * static_cast<double>(y) + phase);
          const double noise = rng.normal(static_cast<uint64_t>(2 + (y * side + x) * channels + c));
          *pixel++ = static_cast<uint8_t>(std::clamp(128 + 40 * wave + 20 * tint + 24 * noise, 0.0, 255.0));
        }
    return image;
  };
  return dataset;
}

}  // namespace stairgrad::data
