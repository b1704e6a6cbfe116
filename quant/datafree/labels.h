// What the images to be made shall look like to the network: one class each, or several at once.
#pragma once

#include <optional>

#include "similarity.h"

namespace stairgrad::quant::datafree {

/// Where the classes of a hard image come from, beside its own.
enum class Arm {
  similar,     ///< the most similar ones (DynaDFQ)
  arbitrary,   ///< uniformly drawn (Qimera's law)
  dissimilar,  ///< the least similar ones
  mixed,       ///< half of them the most similar, half the least
  one_hot,     ///< nowhere: hard images are as easy ones
  smoothing    ///< all classes, with equal shares
};
std::string to_string(Arm arm);
/// Throws argument_error that lists what is known.
Arm parse_arm(const std::string& name);

/// What the paper leaves open has a default of ours; README.md says which.
struct LabelOptions {
  Arm arm = Arm::similar;
  Similarity similarity = Similarity::dot;
  /// Classes of a hard image, its own included; at most as many as there are. Unset: 3 of up to 10 classes,
  /// 5 of up to 100, 10 of more.
  std::optional<int> group = {};
  double least_similarity = -std::numeric_limits<double>::infinity();  ///< less similar ones are left out
  double hard = 0.5;                                                   ///< share of hard images
  /// Soft labels are softmax(z) with z ~ N(0, sigma^2), sigma log-uniform between these, drawn per image.
  double sigma_low = 0.5, sigma_high = 4;
  double dirichlet = 0;    ///< above 0: soft labels ~ Dir(dirichlet, ...) in place of softmax(z)
  double anchor = 0;       ///< added to z of the image's own class
  double smoothing = 0.1;  ///< arm smoothing: share that is spread
};

/// Labels of n images.
struct Labels {
  std::vector<int32_t> classes;  ///< the class each image begins with
  std::vector<uint8_t> hard;     ///< 1 where the label is soft on purpose
  Array soft;                    ///< (n, classes) f32, rows sum to 1

  int64_t size() const { return static_cast<int64_t>(classes.size()); }
  /// Rows first, ..., first + count - 1; `soft` shares memory.
  Labels slice(int64_t first, int64_t count) const;
};

/// Throws argument_error for options out of range.
void validate(const LabelOptions& options);
/// How many classes a hard image has, of so many that there are.
int64_t group_size(const LabelOptions& options, int64_t classes);

/// The classes of a hard image of class `c`, its own first: what the arm says. `item` numbers the image.
std::vector<int32_t> label_group(const Array& similarity, int32_t c, const LabelOptions& options,
                                 uint64_t seed, int64_t item);

/// Labels of images first, ..., first + n - 1: class i % classes, hard by chance. They depend on (options,
/// seed, number of the image) alone. `similarity` (classes, classes). Throws argument_error for options out
/// of range.
Labels draw_labels(int64_t n, const Array& similarity, const LabelOptions& options, uint64_t seed,
                   int64_t first = 0);

/// Labels of images (n, h, w, c) that were made or taken without any: the answers of `teacher` in evaluation
/// mode, softmax of its logits. No image is hard.
Labels answers(nn::Model& teacher, const Array& images);

}  // namespace stairgrad::quant::datafree
