#include "transforms.h"

#include <algorithm>
#include <cmath>
#include <sstream>

namespace stairgrad::data {
namespace {

std::vector<double> numbers(const std::string& list) {
  std::istringstream cells(list);
  std::vector<double> values;
  for (std::string cell; std::getline(cells, cell, ',');) {
    size_t used = 0;
    double value = NAN;
    try {
      value = std::stod(cell, &used);
    } catch (const std::exception&) {
    }
    check(used == cell.size() && std::isfinite(value), "[normalisation] got \"", cell,
          "\", expected a number");
    values.push_back(value);
  }
  return values;
}

/// Where in the picture the pixels of the result come from.
struct Window {
  int64_t top = 0, left = 0, h, w;
  bool mirrored = false;
};

/// A rectangle of the result, clipped to it.
struct Hole {
  int64_t top = 0, bottom = 0, left = 0, right = 0;
};

Hole hole_around(int64_t y, int64_t x, int64_t h_hole, int64_t w_hole, int64_t h, int64_t w) {
  return {std::max<int64_t>(0, y - h_hole / 2), std::min(h, y - h_hole / 2 + h_hole),
          std::max<int64_t>(0, x - w_hole / 2), std::min(w, x - w_hole / 2 + w_hole)};
}

/// table[c * 256 + x] is the normalised value of pixel x in channel c.
template <class T>
std::vector<T> normalised_values(const Normalisation& n, int64_t channels) {
  const auto pick = [&](const std::vector<double>& values, int64_t c) {
    check(values.size() == 1 || static_cast<int64_t>(values.size()) == channels, "[normalisation] got ",
          values.size(), " numbers for ", channels, " channels; name the right --norm");
    return values.size() == 1 ? values[0] : values[static_cast<size_t>(c)];
  };
  std::vector<T> table;
  for (int64_t c = 0; c < channels; ++c)
    for (int x = 0; x < 256; ++x)
      table.push_back(T(static_cast<float>((x / 255.0 - pick(n.mean, c)) / pick(n.std, c))));
  return table;
}

/// Crop, mirror and normalise in one pass; beyond the picture it is black.
template <class T>
void normalise_window(const Array& image, const Window& window, const Normalisation& normalisation, T* dst) {
  const int64_t h = image.dim(0), w = image.dim(1), c = image.dim(2);
  const std::vector<T> table = normalised_values<T>(normalisation, c);
  const uint8_t* pixels = image.data<uint8_t>();
  const auto black = [&](int64_t count) {
    for (int64_t x = 0; x < count; ++x)
      for (int64_t k = 0; k < c; ++k) *dst++ = table[static_cast<size_t>(256 * k)];
  };
  // Columns of the result, before mirroring, that lie in the picture.
  const int64_t begin = std::clamp<int64_t>(-window.left, 0, window.w);
  const int64_t end = std::clamp<int64_t>(w - window.left, begin, window.w);
  for (int64_t y = window.top; y < window.top + window.h; ++y) {
    if (y < 0 || y >= h) {
      black(window.w);
      continue;
    }
    const int64_t step = window.mirrored ? -c : c;
    const uint8_t* from = pixels + (y * w + window.left + (window.mirrored ? end - 1 : begin)) * c;
    black(window.mirrored ? window.w - end : begin);
    for (int64_t x = begin; x < end; ++x, from += step)
      for (int64_t k = 0; k < c; ++k) *dst++ = table[static_cast<size_t>(256 * k + from[k])];
    black(window.mirrored ? begin : window.w - end);
  }
}

template <class T>
void clear_hole(const Hole& hole, int64_t w, int64_t c, T* dst) {
  for (int64_t y = hole.top; y < hole.bottom; ++y)
    std::fill(dst + (y * w + hole.left) * c, dst + (y * w + hole.right) * c, T(0.0f));
}

void check_mixable(const Array& images, const Array& soft_labels, double lambda) {
  check(images.rank() == 4 && soft_labels.rank() == 2 && images.dim(0) == soft_labels.dim(0),
        "[mix] got images ", images.shape(), " and soft labels ", soft_labels.shape(),
        ", expected (n,h,w,c) and (n,classes)");
  check(lambda >= 0 && lambda <= 1, "[mix] got lambda = ", lambda, ", expected 0 to 1");
}

/// Mixes the rows of (n, ...) with those in reverse order, in place, hence by pairs.
template <class T>
void mix_rows(Array& rows, double lambda) {
  const int64_t n = rows.dim(0), width = n ? rows.size() / n : 0;
  const auto a = static_cast<float>(lambda), b = 1 - a;
  for (int64_t i = 0; i < n / 2; ++i) {
    T* x = rows.data<T>() + i * width;
    T* y = rows.data<T>() + (n - 1 - i) * width;
    for (int64_t j = 0; j < width; ++j) {
      const float u = x[j], v = y[j];
      x[j] = T(a * u + b * v);
      y[j] = T(a * v + b * u);
    }
  }
}

template <class Body>
void dispatch_batch(const Array& batch, Body&& body) {
  check(batch.dtype() == DType::f32 || batch.dtype() == DType::bf16, "[transform] batch: got ",
        name_of(batch.dtype()), ", expected f32 or bf16");
  batch.dtype() == DType::f32 ? body(float{}) : body(bf16{});
}

}  // namespace

Normalisation Normalisation::named(const std::string& name) {
  if (name == "cifar" || name == "cifar10")
    return {{.49139968, .48215841, .44653091}, {.24703223, .24348513, .26158784}};
  if (name == "cifar100") return {{.50707516, .48654887, .44091784}, {.26733429, .25643846, .27615047}};
  if (name == "imagenet") return {{.485, .456, .406}, {.229, .224, .225}};
  if (name == "tf") return {{.5}, {.5}};
  if (name == "mnist") return {{.1307}, {.3081}};
  if (name == "fashion-mnist") return {{.2860}, {.3530}};
  if (name == "none") return {};
  const size_t slash = name.find('/');
  check(slash != std::string::npos, "[normalisation] got \"", name,
        "\", expected cifar, cifar100, imagenet, tf, mnist, fashion-mnist, none, or means/deviations");
  Normalisation result{numbers(name.substr(0, slash)), numbers(name.substr(slash + 1))};
  check(!result.mean.empty() && !result.std.empty(), "[normalisation] got \"", name,
        "\", expected means/deviations");
  for (const double std : result.std)
    check(std > 0, "[normalisation] got the deviation ", std, ", expected > 0");
  return result;
}

Array crop(const Array& image, int64_t top, int64_t left, int64_t h, int64_t w) {
  Array result = Array::zeros({h, w, image.dim(2)}, DType::u8);
  const int64_t c = image.dim(2), source_h = image.dim(0), source_w = image.dim(1);
  const int64_t begin = std::clamp<int64_t>(-left, 0, w),
                end = std::clamp<int64_t>(source_w - left, begin, w);
  for (int64_t y = std::max<int64_t>(0, -top); y < std::min(h, source_h - top); ++y)
    std::copy_n(image.data<uint8_t>() + ((top + y) * source_w + left + begin) * c, (end - begin) * c,
                result.data<uint8_t>() + (y * w + begin) * c);
  return result;
}

Array flip_horizontal(const Array& image) {
  Array result(image.shape(), DType::u8);
  const int64_t w = image.dim(1), c = image.dim(2);
  for (int64_t y = 0; y < image.dim(0); ++y)
    for (int64_t x = 0; x < w; ++x)
      std::copy_n(image.data<uint8_t>() + (y * w + x) * c, c,
                  result.data<uint8_t>() + (y * w + w - 1 - x) * c);
  return result;
}

namespace {
/// The offset of a centred crop; a half rounds to even, as Python's round does.
int64_t centred(int64_t length, int64_t side) { return std::llrint(static_cast<double>(length - side) / 2); }
}  // namespace

Array centre_crop(const Array& image, int64_t side) {
  return crop(image, centred(image.dim(0), side), centred(image.dim(1), side), side, side);
}

Shape Transform::dst_shape(const Shape& image_shape) const {
  const int64_t side = centre_crop ? centre_crop : random_resized;
  if (side) return {side, side, image_shape[2]};
  check(image_shape[0] > 0 && !resize,
        "[transform] the pictures have different sizes; set random_resized or centre_crop, so that they fit "
        "a batch");
  return image_shape;
}

void Transform::apply(const Array& source, Draws draws, Array& batch, int64_t row) const {
  Array image = source;
  if (resize) image = resize_short_side(image, resize);
  if (random_resized) image = random_resized_crop(image, random_resized, draws);
  if (jitter != ColourJitter{}) image = colour_jitter(image, jitter, draws);

  Window window{.h = image.dim(0), .w = image.dim(1)};
  if (centre_crop)
    window = {centred(image.dim(0), centre_crop), centred(image.dim(1), centre_crop), centre_crop,
              centre_crop};
  if (pad) {
    window.top += draws.below(2 * pad + 1) - pad;
    window.left += draws.below(2 * pad + 1) - pad;
  }
  if (flip) window.mirrored = draws.below(2) == 1;
  check(batch.rank() == 4 && row >= 0 && row < batch.dim(0) && batch.dim(1) == window.h &&
            batch.dim(2) == window.w && batch.dim(3) == image.dim(2),
        "[transform] got a picture ", Shape{window.h, window.w, image.dim(2)}, " for a batch ",
        batch.shape());

  dispatch_batch(batch, [&](auto zero) {
    using T = decltype(zero);
    T* dst = batch.data<T>() + row * window.h * window.w * image.dim(2);
    normalise_window(image, window, normalisation, dst);
    if (cutout) {
      const int64_t y = draws.below(window.h), x = draws.below(window.w);
      clear_hole(hole_around(y, x, cutout, cutout, window.h, window.w), window.w, image.dim(2), dst);
    }
  });
}

Transform pad_crop_flip(Normalisation normalisation, int64_t pad) {
  return {.normalisation = std::move(normalisation), .pad = pad, .flip = true};
}

Transform resize_and_centre_crop(Normalisation normalisation, int64_t resize, int64_t side) {
  return {.normalisation = std::move(normalisation), .resize = resize, .centre_crop = side};
}

void mixup(Array& images, Array& soft_labels, double lambda) {
  check_mixable(images, soft_labels, lambda);
  dispatch_batch(images, [&](auto zero) { mix_rows<decltype(zero)>(images, lambda); });
  mix_rows<float>(soft_labels, lambda);
}

void cutmix(Array& images, Array& soft_labels, double lambda, Draws& draws) {
  check_mixable(images, soft_labels, lambda);
  const int64_t n = images.dim(0), h = images.dim(1), w = images.dim(2), c = images.dim(3);
  const double side = std::sqrt(1 - lambda);
  const int64_t y = draws.below(h), x = draws.below(w);
  const Hole hole = hole_around(y, x, static_cast<int64_t>(side * static_cast<double>(h)),
                                static_cast<int64_t>(side * static_cast<double>(w)), h, w);
  dispatch_batch(images, [&](auto zero) {
    using T = decltype(zero);
    T* first = images.data<T>();
    for (int64_t i = 0; i < n / 2; ++i)
      for (int64_t row = hole.top; row < hole.bottom; ++row) {
        T* ours = first + ((i * h + row) * w + hole.left) * c;
        T* theirs = first + (((n - 1 - i) * h + row) * w + hole.left) * c;
        std::swap_ranges(ours, ours + (hole.right - hole.left) * c, theirs);
      }
  });
  const auto area = static_cast<double>((hole.bottom - hole.top) * (hole.right - hole.left));
  mix_rows<float>(soft_labels, 1 - area / static_cast<double>(h * w));
}

}  // namespace stairgrad::data
