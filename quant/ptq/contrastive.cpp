#include "contrastive.h"

#include <algorithm>
#include <cmath>

#include "../../kernels/elementwise.h"
#include "../../kernels/gemm.h"
#include "../names.h"

namespace stairgrad::quant {
namespace {

constexpr Named<Critic> critics[] = {{Critic::A, "A"}, {Critic::B, "B"}, {Critic::C, "C"}};
constexpr Named<Mapping> mappings[] = {{Mapping::tail, "tail"},
                                       {Mapping::gap, "gap"},
                                       {Mapping::flatten, "flatten"},
                                       {Mapping::linear, "linear"}};

double row_length(const Array& x, int64_t row) {
  double sum = 0;
  const int64_t d = x.dim(1);
  for (int64_t i = 0; i < d; ++i) sum += std::pow(static_cast<double>(x.data<float>()[row * d + i]), 2);
  return std::sqrt(sum);
}

// Eigenvalues of a symmetric matrix, by Jacobi's rotations.
std::vector<double> eigenvalues(std::vector<std::vector<double>> a) {
  const size_t n = a.size();
  for (int sweep = 0; sweep < 30; ++sweep) {
    double off = 0;
    for (size_t p = 0; p < n; ++p)
      for (size_t q = p + 1; q < n; ++q) {
        off += a[p][q] * a[p][q];
        if (std::abs(a[p][q]) < 1e-15) continue;
        const double theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
        const double t = std::copysign(1 / (std::abs(theta) + std::hypot(theta, 1)), theta);
        const double c = 1 / std::hypot(t, 1), s = t * c;
        for (size_t k = 0; k < n; ++k) {
          const double kp = a[k][p], kq = a[k][q];
          a[k][p] = c * kp - s * kq;
          a[k][q] = s * kp + c * kq;
        }
        for (size_t k = 0; k < n; ++k) {
          const double pk = a[p][k], qk = a[q][k];
          a[p][k] = c * pk - s * qk;
          a[q][k] = s * pk + c * qk;
        }
      }
    if (off < 1e-20) break;
  }
  std::vector<double> values;
  for (size_t i = 0; i < n; ++i) values.push_back(a[i][i]);
  return values;
}

}  // namespace

Critic parse_critic(const std::string& name) { return value_in(critics, name, "critic"); }
Mapping parse_mapping(const std::string& name) { return value_in(mappings, name, "mapping"); }
std::string to_string(Critic critic) { return name_in(critics, critic); }
std::string to_string(Mapping mapping) { return name_in(mappings, mapping); }

Tensor normalised_features(const Tensor& u, bool centre) {
  constexpr double smallest = 1e-6;
  const Tensor x = centre ? u - mean(u, {-1}, /*keep_axes=*/true) : u;
  const Tensor square_length = sum(square(x.detach()), {-1}, /*keep_axes=*/true);
  const Tensor alive = greater_equal(square_length, Tensor(smallest * smallest, u.dtype()));
  return l2_normalise(x * alive, {-1}, smallest);
}

Comparison compare_images(const std::vector<int64_t>& rows, const std::vector<int64_t>& columns,
                          const ContrastiveOptions& options, const Array& features,
                          const std::vector<int32_t>& classes) {
  const auto b = static_cast<int64_t>(rows.size()), k = static_cast<int64_t>(columns.size());
  const bool by_features = options.mask_similarity < 1 || options.reweight;
  check(!by_features || features.has_value(), "[contrastive] masks by similarity need the float features");
  check(!options.mask_prediction || !classes.empty(),
        "[contrastive] masks by prediction need the predictions");
  Comparison result{Array::full({b, k}, 1), Array({b, 1}, DType::s32)};
  float* weights = result.weights.data<float>();
  for (int64_t i = 0; i < b; ++i) {
    const int64_t row = rows[static_cast<size_t>(i)];
    // In a batch the positive of row i is column i; in a bank it is the image's own.
    const int64_t positive = !options.bank ? i : std::ranges::find(columns, row) - columns.begin();
    check(positive < k, "[contrastive] image ", row, " is not among those it is compared with");
    result.positive.data<int32_t>()[i] = static_cast<int32_t>(positive);
    for (int64_t j = 0; j < k; ++j) {
      const int64_t column = columns[static_cast<size_t>(j)];
      float& weight = weights[i * k + j];
      if (j == positive || (options.mask_duplicates && row == column)) weight = 0;
      if (options.mask_prediction &&
          classes[static_cast<size_t>(row)] == classes[static_cast<size_t>(column)])
        weight = 0;
      if (weight == 0 || !by_features) continue;
      double cosine = 0;
      const int64_t d = features.dim(1);
      for (int64_t c = 0; c < d; ++c)
        cosine +=
            static_cast<double>(features.data<float>()[row * d + c] * features.data<float>()[column * d + c]);
      if (cosine > options.mask_similarity) weight = 0;
      if (options.reweight) weight *= static_cast<float>(std::max(0.0, 1 - cosine));
    }
  }
  return result;
}

Tensor contrastive_loss(const Tensor& similarity, const Comparison& comparison,
                        const ContrastiveOptions& options, int64_t images) {
  const DType type = similarity.dtype();
  const Tensor weights = cast(comparison.weights, type);
  const Tensor z = similarity / options.temperature, positive = gather(z, Tensor(comparison.positive));
  const auto rows = static_cast<double>(similarity.dim(0));
  if (options.critic == Critic::C) {
    // A negative of weight w adds w exp(z) to the sum; the positive always counts 1.
    const Array one = cast(
        one_hot(Tensor(comparison.positive.reshape({similarity.dim(0)})), similarity.dim(1)).value(), type);
    const Array factor = kernels::binary(kernels::Binary::add, weights.value(), one);
    const Tensor counted = greater(Tensor(factor), Tensor(0, type));
    const Tensor log_factor = log(where(counted, Tensor(factor), Tensor(1, type)));
    const Tensor terms = where(counted, z + log_factor, Tensor(-1e30, type));
    return sum(logsumexp(terms, {-1}, /*keep_axes=*/true) - positive) / rows;
  }
  const double total = sum(weights).item();
  if (options.critic == Critic::B) {
    const Tensor attract = sum(softplus(-positive)) / rows;
    return total > 0 ? attract + sum(softplus(z) * weights) / total : attract;
  }
  const double noise =
      std::log(std::max(1.0, total / rows) / static_cast<double>(std::max<int64_t>(1, images)));
  return (sum(softplus(noise - positive)) + sum(softplus(z - noise) * weights)) / rows;
}

FeatureStatistics feature_statistics(const Array& quantized, const Array& floating) {
  const int64_t n = quantized.dim(0), d = quantized.dim(1);
  const NoGrad no_grad;
  const Array q = normalised_features(Tensor(quantized)).value(),
              f = normalised_features(Tensor(floating)).value();
  const Array s = kernels::matmul(q, f, false, true);
  FeatureStatistics result;
  result.images = n;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j)
      (i == j ? result.positive : result.negative) += s.data<float>()[i * n + j];
  result.positive /= static_cast<double>(n);
  if (n > 1) result.negative /= static_cast<double>(n * (n - 1));
  std::vector<double> mean(static_cast<size_t>(d)), square(static_cast<size_t>(d));
  for (int64_t i = 0; i < n; ++i) {
    result.scale +=
        row_length(quantized, i) / std::max(1e-12, row_length(floating, i)) / static_cast<double>(n);
    for (int64_t c = 0; c < d; ++c) {
      const double value = q.data<float>()[i * d + c];
      mean[static_cast<size_t>(c)] += value / static_cast<double>(n);
      square[static_cast<size_t>(c)] += value * value / static_cast<double>(n);
    }
  }
  double variance = 0;  // summed over the features: of directions it does not depend on how many there are
  for (size_t c = 0; c < mean.size(); ++c) variance += std::max(0.0, square[c] - mean[c] * mean[c]);
  result.spread = std::sqrt(variance);
  // Singular values squared are the eigenvalues of the smaller Gram matrix.
  const Array gram = n <= d ? kernels::matmul(q, q, false, true) : kernels::matmul(q, q, true, false);
  const auto size = static_cast<size_t>(gram.dim(0));
  std::vector<std::vector<double>> a(size, std::vector<double>(size));
  for (size_t i = 0; i < size * size; ++i) a[i / size][i % size] = gram.data<float>()[i];
  double total = 0, entropy = 0;
  std::vector<double> singular;
  for (const double value : eigenvalues(a)) singular.push_back(std::sqrt(std::max(0.0, value)));
  for (const double value : singular) total += value;
  for (const double value : singular)
    if (value > 0) entropy -= value / total * std::log(value / total);
  result.rank = std::exp(entropy);
  return result;
}

double mean_similarity(const Array& features) {
  // The mean over pairs i != j of <v_i, v_j> is (|sum v|^2 - sum |v|^2) / (n (n - 1)).
  const int64_t n = features.dim(0), d = features.dim(1);
  if (n < 2) return 1;
  std::vector<double> sum(static_cast<size_t>(d));
  double own = 0, all = 0;
  for (int64_t i = 0; i < n * d; ++i) {
    const double value = features.data<float>()[i];
    sum[static_cast<size_t>(i % d)] += value;
    own += value * value;
  }
  for (const double value : sum) all += value * value;
  return (all - own) / static_cast<double>(n * (n - 1));
}

}  // namespace stairgrad::quant
