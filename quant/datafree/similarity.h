// Which classes a network takes for each other, read off its classifier.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "../../nn/model.h"

namespace stairgrad::quant::datafree {

/// How two rows w_c, w_k of the classifier's weights are compared.
enum class Similarity {
  dot,     ///< w_c . w_k (DynaDFQ, eq. 5)
  cosine,  ///< of the angle between them; 0 for a row of zeros
  centred  ///< cosine after the mean row is taken off, which softmax does not see
};
std::string to_string(Similarity kind);
/// Throws argument_error that lists what is known.
Similarity parse_similarity(const std::string& name);

/// Weights of the last layer that multiplies, as (classes, features); its bias plays no part.
Array classifier_weights(nn::Model& model);

/// (classes, classes) f64 from weights (classes, features) f32.
Array class_similarity(const Array& weights, Similarity kind);

/// Classes but `c`, the most similar first; equal ones by number.
std::vector<int32_t> most_similar(const Array& similarity, int32_t c);

/// Share of classes that are not the most similar ones to themselves, as happens with dot products and rows
/// of large norm.
double share_of_foreign_maxima(const Array& similarity);

}  // namespace stairgrad::quant::datafree
