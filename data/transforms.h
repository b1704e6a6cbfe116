// From a u8 picture to one element of a batch: geometry, colour, normalisation.
#pragma once

#include <string>
#include <vector>

#include "../kernels/random.h"

namespace stairgrad::data {

/// y = (x / 255 - mean) / std, per channel.
struct Normalisation {
  std::vector<double> mean = {0}, std = {1};  ///< one number serves all channels

  /// cifar (or cifar10), cifar100, imagenet, tf (x / 127.5 - 1), mnist, fashion-mnist, none, or numbers
  /// "0.5,0.5,0.5/0.2,0.2,0.2" (means / deviations). Throws argument_error for anything else.
  static Normalisation named(const std::string& name);
};

/// A sequence of random numbers that depends on (seed, epoch, item) alone, so neither the number of workers
/// nor the order of their work can change a batch.
class Draws : public RandomSequence {
 public:
  Draws(uint64_t seed, int64_t epoch, int64_t item)
      : RandomSequence(Philox(seed ^ stream_of("augment"),
                              static_cast<uint64_t>(epoch) << 40 | static_cast<uint64_t>(item))) {}
};

/// Random changes of colour, as torchvision's ColorJitter: each factor is uniform in [1 - x, 1 + x], the hue
/// shift in
/// [-hue, hue] turns, in random order.
struct ColourJitter {
  double brightness = 0, contrast = 0, saturation = 0, hue = 0;
  bool operator==(const ColourJitter&) const = default;
};

// Pictures are u8 (h, w, c).

/// Bilinear with antialiasing, equal to Pillow's (and so to torchvision's on pictures) in every bit.
Array resize(const Array& image, int64_t h, int64_t w);
/// The shorter side becomes `side`, the longer one keeps the proportion, rounded down as torchvision does.
Array resize_short_side(const Array& image, int64_t side);
/// The rectangle at (top, left), which may reach beyond the picture: there it is black.
Array crop(const Array& image, int64_t top, int64_t left, int64_t h, int64_t w);
/// The square in the middle (torchvision's rounding).
Array centre_crop(const Array& image, int64_t side);
/// A rectangle of 8 to 100 % of the area and proportion 3/4 to 4/3, resized to a square (torchvision's
/// RandomResizedCrop; Szegedy et al., "Going deeper with convolutions", 2015, section 6).
Array random_resized_crop(const Array& image, int64_t side, Draws& draws);
Array flip_horizontal(const Array& image);
Array colour_jitter(const Array& image, const ColourJitter& jitter, Draws& draws);

/// What a loader does with each picture. The steps run in the order of the members; those left at their
/// defaults are skipped. Padding, crop, flip, cutout and normalisation are one pass over the pixels.
struct Transform {
  Normalisation normalisation = {};
  int64_t resize = 0;          ///< new length of the shorter side
  int64_t random_resized = 0;  ///< side of a random_resized_crop
  ColourJitter jitter = {};
  int64_t centre_crop = 0;  ///< side of the square in the middle
  int64_t pad = 0;          ///< black border; then a random crop of the size before
  bool flip = false;        ///< mirror left and right with probability 1/2
  int64_t cutout = 0;       ///< side of a square set to 0 after normalisation (DeVries and Taylor, 2017)

  /// Shape (h, w, c) of what comes out. Throws argument_error if pictures of different sizes would stay
  /// different.
  Shape dst_shape(const Shape& image_shape) const;
  /// Transforms `image` into row `row` of `batch`, f32 or bf16 (n, h, w, c).
  void apply(const Array& image, Draws draws, Array& batch, int64_t row) const;
};

/// Pad by 4, random crop, flip: the usual training transform of CIFAR.
Transform pad_crop_flip(Normalisation normalisation, int64_t pad = 4);
/// Resize the shorter side to `resize`, crop the middle: the usual evaluation transform of ImageNet.
Transform resize_and_centre_crop(Normalisation normalisation, int64_t resize = 256, int64_t side = 224);

/// Mixes row i of images (n, h, w, c) and of soft labels (n, classes) with row n-1-i:
/// x_i <- lambda x_i + (1 - lambda) x_(n-1-i) (Zhang et al., "mixup", 2018).
void mixup(Array& images, Array& soft_labels, double lambda);
/// Copies one rectangle of area about 1 - lambda from row n-1-i into row i; the labels mix by the true area
/// (Yun et al., "CutMix", 2019).
void cutmix(Array& images, Array& soft_labels, double lambda, Draws& draws);

}  // namespace stairgrad::data
