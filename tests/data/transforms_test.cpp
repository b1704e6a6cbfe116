// Each transform against its plain definition.
#include "data/transforms.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

using namespace stairgrad;
using namespace stairgrad::data;

namespace {

Array picture(int64_t h, int64_t w, int64_t c, uint64_t seed = 1) {
  Array image({h, w, c}, DType::u8);
  const Philox rng(seed);
  for (int64_t i = 0; i < image.size(); ++i)
    image.data<uint8_t>()[i] = static_cast<uint8_t>(rng.below(static_cast<uint64_t>(i), 256));
  return image;
}

int at(const Array& image, int64_t y, int64_t x, int64_t c) {
  return image.data<uint8_t>()[(y * image.dim(1) + x) * image.dim(2) + c];
}

Array apply(const Transform& transform, const Array& image, uint64_t seed = 0, DType dtype = DType::f32) {
  const Shape dst = transform.dst_shape(image.shape());
  Array batch({1, dst[0], dst[1], dst[2]}, dtype);
  transform.apply(image, Draws(seed, 0, 0), batch, 0);
  return batch.reshape(dst);
}

}  // namespace

TEST_CASE("normalisation: each pixel is (x / 255 - mean) / std, rounded once") {
  const Array image = picture(5, 4, 3);
  const Normalisation n = Normalisation::named("cifar");
  const std::vector<double> got = apply({.normalisation = n}, image).to_vector();
  const std::vector<double> half = apply({.normalisation = n}, image, 0, DType::bf16).to_vector();
  for (size_t i = 0; i < got.size(); ++i) {
    const double expected = (image.data<uint8_t>()[i] / 255.0 - n.mean[i % 3]) / n.std[i % 3];
    CHECK(got[i] == static_cast<float>(expected));
    CHECK(half[i] == bf16(static_cast<float>(expected)));
  }
  CHECK(apply({.normalisation = Normalisation::named("tf")}, Array::full({1, 1, 1}, 255, DType::u8)).item() ==
        1);
  CHECK(apply({.normalisation = Normalisation::named("tf")}, Array::full({1, 1, 1}, 0, DType::u8)).item() ==
        -1);
}

TEST_CASE("normalisation: names and numbers") {
  CHECK(Normalisation::named("0.5,0.25/2").mean == std::vector<double>{0.5, 0.25});
  CHECK(Normalisation::named("0.5,0.25/2").std == std::vector<double>{2});
  CHECK(Normalisation::named("imagenet").std == std::vector<double>{.229, .224, .225});
  CHECK(Normalisation::named("none").mean == std::vector<double>{0});
  for (const char* bad : {"cfar", "", "1", "1/0", "1/-1", "x/1", "1/1x", "nan/1", "/"})
    CHECK_THROWS_AS(Normalisation::named(bad), argument_error);
  CHECK_THROWS_AS(apply({.normalisation = Normalisation::named("cifar")}, picture(2, 2, 1)), argument_error);
}

TEST_CASE("pad-crop and flip: the one pass equals crop, then flip, then normalise; all offsets occur") {
  const Array image = picture(7, 5, 3);
  std::set<std::vector<double>> distinct;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    const std::vector<double> got = apply(pad_crop_flip({}, 2), image, seed).to_vector();
    Draws draws(seed, 0, 0);
    const int64_t top = draws.below(5) - 2, left = draws.below(5) - 2;
    Array expected = crop(image, top, left, 7, 5);
    if (draws.below(2) == 1) expected = flip_horizontal(expected);
    CHECK(got == apply({}, expected).to_vector());
    distinct.insert(got);
  }
  CHECK(distinct.size() == 50);  // 5 x 5 offsets, two directions
}

TEST_CASE("crop: inside it copies, outside it is black") {
  const Array image = picture(4, 5, 2);
  for (const auto& [top, left, h, w] : {std::array<int64_t, 4>{1, 2, 2, 3},
                                        {-2, -1, 9, 9},
                                        {3, 4, 4, 4},
                                        {-9, 0, 3, 3},
                                        {0, 20, 2, 2},
                                        {0, -20, 2, 2}}) {
    const Array part = crop(image, top, left, h, w);
    for (int64_t y = 0; y < h; ++y)
      for (int64_t x = 0; x < w; ++x) {
        const bool inside = top + y >= 0 && top + y < 4 && left + x >= 0 && left + x < 5;
        CHECK(at(part, y, x, 1) == (inside ? at(image, top + y, left + x, 1) : 0));
      }
  }
}

TEST_CASE("centre crop: the middle, with Python's rounding of halves") {
  const Array image = picture(9, 8, 1);
  CHECK(at(centre_crop(image, 4), 0, 0, 0) == at(image, 2, 2, 0));   // (9 - 4) / 2 = 2.5 -> 2
  CHECK(at(centre_crop(image, 6), 0, 0, 0) == at(image, 2, 1, 0));   // 1.5 -> 2
  CHECK(at(centre_crop(image, 12), 2, 2, 0) == at(image, 0, 0, 0));  // a border of black: -1.5 -> -2
  CHECK(apply({.centre_crop = 6}, image).to_vector() == apply({}, centre_crop(image, 6)).to_vector());
}

TEST_CASE("flip: columns in reverse order, twice is nothing") {
  const Array image = picture(3, 4, 3), flipped = flip_horizontal(image);
  for (int64_t x = 0; x < 4; ++x) CHECK(at(flipped, 2, x, 1) == at(image, 2, 3 - x, 1));
  CHECK(flip_horizontal(flipped).to_vector() == image.to_vector());
}

TEST_CASE("cutout: one clipped square of zeros, the rest untouched") {
  const Array image = picture(9, 7, 3);
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const std::vector<double> got = apply({.cutout = 4}, image, seed).to_vector(),
                              plain = apply({}, image).to_vector();
    Draws draws(seed, 0, 0);
    const int64_t cy = draws.below(9), cx = draws.below(7);
    for (int64_t y = 0; y < 9; ++y)
      for (int64_t x = 0; x < 7; ++x) {
        const bool hole = y >= cy - 2 && y < cy + 2 && x >= cx - 2 && x < cx + 2;
        const auto i = static_cast<size_t>((y * 7 + x) * 3);
        CHECK(got[i] == (hole ? 0 : plain[i]));
      }
  }
}

TEST_CASE("resize: the numbers of Pillow 9.4, bilinear") {
  // Image.fromarray(ramp).resize((w, h), BILINEAR) of ramp[y, x] = (37 y + 11 x + 5 x y) % 256, 6 rows, 7
  // columns.
  Array ramp({6, 7, 1}, DType::u8);
  for (int64_t y = 0; y < 6; ++y)
    for (int64_t x = 0; x < 7; ++x)
      ramp.data<uint8_t>()[y * 7 + x] = static_cast<uint8_t>((37 * y + 11 * x + 5 * x * y) % 256);
  CHECK(resize(ramp, 2, 3).to_vector() == std::vector<double>{61, 98, 124, 151, 140, 109});
  CHECK(resize(ramp, 9, 5).to_vector() ==
        std::vector<double>{4,   17,  33,  49,  62,  23,  40,  59,  79,  95,  49,  70,  94,  118, 139,
                            74,  99,  128, 157, 182, 101, 129, 163, 197, 141, 126, 159, 190, 194, 85,
                            152, 188, 193, 63,  71,  178, 148, 116, 60,  101, 197, 99,  37,  89,  133});
  CHECK(resize(ramp, 12, 14).to_vector() ==
        std::vector<double>{
            0,   3,   8,   14,  19,  25,  30,  36,  41,  47,  52,  58,  63,  66,  9,   13,  18,  25,  31,
            37,  43,  49,  55,  62,  67,  74,  80,  83,  28,  32,  39,  46,  54,  61,  68,  76,  83,  91,
            98,  105, 113, 116, 46,  51,  59,  68,  77,  85,  94,  102, 111, 120, 128, 137, 146, 150, 65,
            70,  80,  89,  100, 109, 119, 129, 139, 149, 159, 168, 179, 183, 83,  89,  100, 111, 123, 133,
            145, 156, 167, 178, 189, 184, 164, 153, 102, 108, 121, 133, 146, 158, 170, 183, 195, 207, 220,
            184, 101, 58,  120, 128, 141, 155, 168, 182, 196, 193, 175, 173, 186, 152, 69,  28,  139, 147,
            161, 176, 191, 206, 221, 188, 106, 74,  88,  87,  70,  61,  157, 166, 181, 182, 166, 166, 182,
            150, 70,  39,  54,  71,  87,  95,  176, 185, 202, 171, 93,  62,  79,  81,  66,  68,  85,  102,
            120, 128, 185, 194, 212, 166, 56,  10,  28,  46,  64,  82,  100, 118, 136, 145});
  CHECK(resize(ramp, 3, 7).to_vector() == std::vector<double>{26,  41,  56,  70,  85,  99,  114,
                                                              93,  116, 140, 163, 155, 178, 106,
                                                              159, 191, 114, 146, 69,  101, 97});
  CHECK(resize(ramp, 6, 7).to_vector() == ramp.to_vector());
  CHECK_THROWS_AS(resize(ramp, 0, 3), argument_error);
}

TEST_CASE("resize: a flat picture stays flat, short side and proportion as torchvision's") {
  const Array flat = Array::full({31, 17, 3}, 201, DType::u8);
  for (const double value : resize(flat, 5, 40).to_vector()) CHECK(value == 201);
  CHECK(resize_short_side(picture(300, 451, 3), 256).shape() == Shape{256, 384, 3});  // 384.85 is cut
  CHECK(resize_short_side(picture(451, 300, 3), 256).shape() == Shape{384, 256, 3});
  CHECK(resize_short_side(picture(20, 20, 3), 10).shape() == Shape{10, 10, 3});
}

TEST_CASE(
    "random resized crop: right size, inside the picture, many different ones, fallback for long pictures") {
  const Array image = picture(30, 40, 3);
  std::set<std::vector<double>> distinct;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Draws draws(seed, 0, 0);
    const Array part = random_resized_crop(image, 16, draws);
    CHECK(part.shape() == Shape{16, 16, 3});
    distinct.insert(part.to_vector());
  }
  CHECK(distinct.size() == 20);
  Draws draws(1, 0, 0);
  CHECK(random_resized_crop(picture(2, 300, 3), 8, draws).shape() == Shape{8, 8, 3});
  CHECK(random_resized_crop(picture(1, 1, 3), 8, draws).shape() == Shape{8, 8, 3});
}

TEST_CASE("colour jitter: off is nothing; brightness scales, saturation and hue leave grey alone") {
  const Array image = picture(6, 6, 3), grey = Array::full({4, 4, 3}, 90, DType::u8);
  Draws draws(3, 0, 0);
  CHECK(colour_jitter(image, {}, draws).to_vector() == image.to_vector());
  CHECK(colour_jitter(grey, {.contrast = 1, .saturation = 1, .hue = 0.5}, draws).to_vector() ==
        grey.to_vector());
  std::set<double> levels;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Draws d(seed, 0, 0);
    const std::vector<double> brighter = colour_jitter(grey, {.brightness = 0.5}, d).to_vector();
    CHECK(brighter.front() == brighter.back());
    CHECK(brighter[0] >= 45);
    CHECK(brighter[0] <= 135);
    levels.insert(brighter[0]);
  }
  CHECK(levels.size() > 50);
  // Turning the hue keeps value and chroma of each pixel.
  const Array turned = colour_jitter(image, {.hue = 0.5}, draws);
  CHECK(turned.to_vector() != image.to_vector());
  for (int64_t i = 0; i < 36; ++i) {
    const uint8_t* a = image.data<uint8_t>() + 3 * i;
    const uint8_t* b = turned.data<uint8_t>() + 3 * i;
    CHECK(std::max({a[0], a[1], a[2]}) == std::max({b[0], b[1], b[2]}));
    CHECK(std::min({a[0], a[1], a[2]}) == std::min({b[0], b[1], b[2]}));
  }
}

TEST_CASE("mixup: rows mix with those in reverse order, and so do the labels") {
  Array images = Array::of<float>({0, 1, 10, 11, 20, 21}, {3, 1, 2, 1});
  Array labels = Array::of<float>({1, 0, 0, 1, 1, 0}, {3, 2});
  mixup(images, labels, 0.75);
  CHECK(images.to_vector() == std::vector<double>{5, 6, 10, 11, 15, 16});
  CHECK(labels.to_vector() == std::vector<double>{1, 0, 0, 1, 1, 0});
  CHECK_THROWS_AS(mixup(images, labels, 1.5), argument_error);
  Array other = Array::zeros({2, 2});
  CHECK_THROWS_AS(mixup(images, other, 0.5), argument_error);
}

TEST_CASE("cutmix: pixels come from one of two pictures, and labels weigh their true areas") {
  for (uint64_t seed = 0; seed < 30; ++seed) {
    Array images({2, 8, 8, 1}), labels = Array::of<float>({1, 0, 0, 1}, {2, 2});
    for (int64_t i = 0; i < 128; ++i) images.data<float>()[i] = i < 64 ? 0.0f : 1.0f;
    Draws draws(seed, 0, 0);
    cutmix(images, labels, draws.uniform(), draws);
    double foreign = 0;
    for (int64_t i = 0; i < 64; ++i) {
      foreign += images.data<float>()[i];
      CHECK(images.data<float>()[i] + images.data<float>()[64 + i] == 1);
    }
    CHECK(labels.to_vector()[1] == doctest::Approx(foreign / 64));
    CHECK(labels.to_vector()[0] == doctest::Approx(1 - foreign / 64));
  }
}
