#include "difficulty.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "../../kernels/reduce.h"
#include "../../kernels/threads.h"

namespace stairgrad::quant::datafree {
namespace {

constexpr double undefined = std::numeric_limits<double>::quiet_NaN();

// Calls body(x, next x, share of a up to x, share of b up to x) between all values of both samples.
template <class Body>
void for_steps(std::vector<double>& a, std::vector<double>& b, const Body& body) {
  std::ranges::sort(a);
  std::ranges::sort(b);
  std::vector<double> all = a;
  all.insert(all.end(), b.begin(), b.end());
  std::ranges::sort(all);
  const auto share = [](const std::vector<double>& values, double x) {
    return static_cast<double>(std::ranges::upper_bound(values, x) - values.begin()) /
           static_cast<double>(values.size());
  };
  for (size_t i = 0; i + 1 < all.size(); ++i) body(all[i], all[i + 1], share(a, all[i]), share(b, all[i]));
}

double squared_distance(const float* a, const float* b, int64_t d) {
  double sum = 0;
  for (int64_t i = 0; i < d; ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += difference * difference;
  }
  return sum;
}

}  // namespace

Difficulty difficulty(const Array& logits, const Array& labels) {
  check(logits.rank() == 2 && logits.shape() == labels.shape() && logits.dim(1) > 0,
        "[difficulty] got logits ", logits.shape(), " and labels ", labels.shape(),
        ", expected (n, classes) twice");
  const Array p = kernels::softmax(logits);
  const int64_t classes = p.dim(1);
  Difficulty result;
  for (int64_t i = 0; i < p.dim(0); ++i) {
    const float *row = p.data<float>() + i * classes, *y = labels.data<float>() + i * classes;
    double entropy = 0, distance = 0, first = 0, second = 0;
    for (int64_t c = 0; c < classes; ++c) {
      const double share = row[c];
      if (share > 0) entropy -= share * std::log(share);
      distance += std::abs(share - static_cast<double>(y[c]));
      second = std::max(second, std::min(first, share));
      first = std::max(first, share);
    }
    result.entropy.push_back(std::max(0.0, entropy));
    result.gradient.push_back(std::min(1.0, distance / 2));
    result.margin.push_back(first - second);
  }
  result.density = gradient_density(result.gradient);
  return result;
}

std::vector<double> gradient_density(const std::vector<double>& gradient, double window) {
  std::vector<double> sorted = gradient, density;
  std::ranges::sort(sorted);
  for (const double g : gradient) {
    const double low = g - window / 2, high = g + window / 2;
    const auto inside = std::ranges::lower_bound(sorted, high) - std::ranges::upper_bound(sorted, low);
    const double share = static_cast<double>(inside) / static_cast<double>(gradient.size());
    density.push_back(share / (std::min(high, 1.0) - std::max(low, 0.0)));
  }
  return density;
}

double largest_distance(std::vector<double> a, std::vector<double> b) {
  if (a.empty() || b.empty()) return undefined;
  double largest = 0;
  for_steps(a, b, [&](double x, double next, double of_a, double of_b) {
    if (x < next) largest = std::max(largest, std::abs(of_a - of_b));
  });
  return largest;
}

double mean_distance(std::vector<double> a, std::vector<double> b) {
  if (a.empty() || b.empty()) return undefined;
  double area = 0;
  for_steps(a, b, [&](double x, double next, double of_a, double of_b) {
    area += (next - x) * std::abs(of_a - of_b);
  });
  return area;
}

std::vector<int64_t> histogram(const std::vector<double>& values, double low, double high, int bins) {
  check(bins >= 1 && low < high, "[histogram] got ", bins, " bins from ", low, " to ", high,
        ", expected at least 1 and low < high");
  std::vector<int64_t> counts(static_cast<size_t>(bins));
  for (const double value : values) {
    const double at = (value - low) / (high - low) * bins;
    ++counts[static_cast<size_t>(std::clamp(at, 0.0, bins - 1.0))];
  }
  return counts;
}

double mean_pairwise_cosine(const Array& features) {
  const int64_t n = features.dim(0), d = features.dim(1);
  if (n < 2) return undefined;
  // |sum of unit rows|^2 = n + sum over pairs of their cosines.
  std::vector<double> sum(static_cast<size_t>(d));
  int64_t units = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float* row = features.data<float>() + i * d;
    double norm = 0;
    for (int64_t k = 0; k < d; ++k) norm += static_cast<double>(row[k]) * static_cast<double>(row[k]);
    if (norm == 0) continue;
    ++units;
    for (int64_t k = 0; k < d; ++k)
      sum[static_cast<size_t>(k)] += static_cast<double>(row[k]) / std::sqrt(norm);
  }
  double squared = 0;
  for (const double x : sum) squared += x * x;
  return (squared - static_cast<double>(units)) / static_cast<double>(n * (n - 1));
}

double coverage(const Array& real, const Array& made, int k) {
  const int64_t n = real.dim(0), d = real.dim(1);
  check(k >= 1 && k < n && made.rank() == 2 && made.dim(1) == d, "[coverage] got features ", real.shape(),
        " and ", made.shape(), " and k = ", k, ", expected (n, d) with n > k and (m, d)");
  std::vector<uint8_t> covered(static_cast<size_t>(n));
  parallel_for(n, 16, [&](int64_t begin, int64_t end) {
    std::vector<double> distances(static_cast<size_t>(n));
    for (int64_t i = begin; i < end; ++i) {
      const float* own = real.data<float>() + i * d;
      for (int64_t j = 0; j < n; ++j)
        distances[static_cast<size_t>(j)] = squared_distance(own, real.data<float>() + j * d, d);
      std::ranges::nth_element(distances, distances.begin() + k);  // the nearest is the row itself
      for (int64_t j = 0; j < made.dim(0) && !covered[static_cast<size_t>(i)]; ++j)
        covered[static_cast<size_t>(i)] =
            squared_distance(own, made.data<float>() + j * d, d) <= distances[static_cast<size_t>(k)];
    }
  });
  return static_cast<double>(std::ranges::count(covered, 1)) / static_cast<double>(n);
}

std::vector<double> nearest_distances(const Array& features, const Array& others) {
  const int64_t n = features.dim(0), d = features.dim(1);
  check(others.rank() == 2 && others.dim(0) >= 1 && others.dim(1) == d, "[nearest_distances] got features ",
        features.shape(), " and ", others.shape(), ", expected (n, d) and (m, d)");
  std::vector<double> nearest(static_cast<size_t>(n));
  parallel_for(n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      double least = HUGE_VAL;
      for (int64_t j = 0; j < others.dim(0); ++j)
        least = std::min(least,
                         squared_distance(features.data<float>() + i * d, others.data<float>() + j * d, d));
      nearest[static_cast<size_t>(i)] = std::sqrt(least);
    }
  });
  return nearest;
}

}  // namespace stairgrad::quant::datafree
