#include "similarity.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "../../nn/layers.h"
#include "../names.h"

namespace stairgrad::quant::datafree {
namespace {

constexpr double smallest_norm = 1e-12;
constexpr Named<Similarity> similarities[] = {
    {Similarity::dot, "dot"}, {Similarity::cosine, "cosine"}, {Similarity::centred, "centred"}};

}  // namespace

std::string to_string(Similarity kind) { return name_in(similarities, kind); }
Similarity parse_similarity(const std::string& name) { return value_in(similarities, name, "similarity"); }

Array classifier_weights(nn::Model& model) {
  Array weights;
  for (const nn::NamedModule& m : model.modules()) {
    if (const auto* linear = dynamic_cast<nn::Linear*>(m.module)) weights = linear->weight.value();
    if (const auto* conv = dynamic_cast<nn::Conv2d*>(m.module)) weights = conv->weight.value();
  }
  check(weights.has_value(), "[classifier_weights] the model has no layer with weights");
  return weights.reshape({weights.dim(0), weights.size() / weights.dim(0)});
}

Array class_similarity(const Array& weights, Similarity kind) {
  check(weights.rank() == 2 && weights.size() > 0, "[class_similarity] weights: got ", weights.shape(),
        ", expected (classes, features)");
  const int64_t classes = weights.dim(0), features = weights.dim(1);
  std::vector<double> w = weights.to_vector();
  if (kind == Similarity::centred)
    for (int64_t f = 0; f < features; ++f) {
      double mean = 0;
      for (int64_t c = 0; c < classes; ++c) mean += w[static_cast<size_t>(c * features + f)];
      mean /= static_cast<double>(classes);
      for (int64_t c = 0; c < classes; ++c) w[static_cast<size_t>(c * features + f)] -= mean;
    }
  const auto row = [&](int64_t c) { return w.begin() + c * features; };
  if (kind != Similarity::dot)
    for (int64_t c = 0; c < classes; ++c) {
      const double norm = std::sqrt(std::inner_product(row(c), row(c + 1), row(c), 0.0));
      std::for_each(row(c), row(c + 1), [&](double& x) { x /= std::max(norm, smallest_norm); });
    }
  Array result({classes, classes}, DType::f64);
  for (int64_t c = 0; c < classes; ++c)
    for (int64_t k = 0; k < classes; ++k)
      result.data<double>()[c * classes + k] = std::inner_product(row(c), row(c + 1), row(k), 0.0);
  return result;
}

std::vector<int32_t> most_similar(const Array& similarity, int32_t c) {
  const int64_t classes = similarity.dim(0);
  check(c >= 0 && c < classes, "[most_similar] got the class ", c, " of ", classes);
  const double* row = similarity.data<double>() + c * classes;
  std::vector<int32_t> others;
  for (int32_t k = 0; k < classes; ++k)
    if (k != c) others.push_back(k);
  std::ranges::stable_sort(others, [&](int32_t a, int32_t b) { return row[a] > row[b]; });
  return others;
}

double share_of_foreign_maxima(const Array& similarity) {
  const int64_t classes = similarity.dim(0);
  int64_t foreign = 0;
  for (int64_t c = 0; c < classes; ++c) {
    const double* row = similarity.data<double>() + c * classes;
    foreign += std::max_element(row, row + classes) - row != c;
  }
  return static_cast<double>(foreign) / static_cast<double>(classes);
}

}  // namespace stairgrad::quant::datafree
