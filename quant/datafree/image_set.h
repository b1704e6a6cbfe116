// Images that were made, with their labels: in memory and on disk.
#pragma once

#include <string>
#include <vector>

#include "labels.h"

namespace stairgrad::quant::datafree {

/// Means and deviations per channel of the normalisation that the network expects; one number serves all
/// channels.
struct PixelScale {
  std::vector<double> mean = {0}, deviation = {1};
  /// Normalised values of black and white, per channel.
  std::vector<double> black(int64_t channels) const;
  std::vector<double> white(int64_t channels) const;
};

struct ImageSet {
  Array images;  ///< (n, h, w, c) f32, normalised
  Labels labels;
  std::string recipe;  ///< JSON of how they were made

  int64_t size() const { return labels.size(); }
};

/// Image i for people: u8 (h, w, c), cut to what a picture can show.
Array picture(const Array& images, int64_t i, const PixelScale& scale);

/// Writes a folder: images.safetensors (exact values and labels: what training reads), pictures/000000.png
/// ... and labels.tsv (a data set of kind `folder`), recipe.json. Throws unavailable_error if it cannot.
void save(const ImageSet& set, const std::string& folder, const PixelScale& scale,
          const std::vector<std::string>& class_names);
/// Reads images.safetensors and recipe.json back. Throws format_error for files that do not hang together.
ImageSet load_images(const std::string& folder);

}  // namespace stairgrad::quant::datafree
