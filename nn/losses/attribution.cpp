#include "attribution.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../attribution.h"
#include "../rank_statistics.h"

namespace stairgrad::nn {
namespace {

void check_maps(const char* who, const Shape& maps, const Shape& others) {
  check(maps.rank() == 3 && maps == others, "[", who, "] got maps ", maps, " and ", others,
        ", expected (n,h,w) twice");
}

// The k largest that are positive; of equals the first.
std::vector<int64_t> largest(const double* values, int64_t pixels, int64_t k) {
  std::vector<int64_t> order(static_cast<size_t>(pixels));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return values[a] > values[b]; });
  const auto end = std::find_if(order.begin(), order.end(), [&](int64_t p) { return !(values[p] > 0); });
  order.resize(static_cast<size_t>(std::min<int64_t>(k, end - order.begin())));
  return order;
}

// One image of maps, in double.
std::vector<double> image_of(const Array& maps, int64_t i) { return maps.slice(i, 1).to_vector(); }

}  // namespace

Imitation imitate(const Tensor& maps, const Array& targets, const ImitationOptions& o) {
  check_maps("imitate", maps.shape(), targets.shape());
  const int64_t n = maps.dim(0), pixels = maps.dim(1) * maps.dim(2), k = o.top_k > 0 ? o.top_k : pixels;
  check(o.exponents.size() == 1 || static_cast<int64_t>(o.exponents.size()) == n, "[imitate] got ",
        o.exponents.size(), " exponents for ", n, " images, expected one, or one for each");
  for (const double p : o.exponents)
    check(p > 0 && std::isfinite(p), "[imitate] got the exponent ", p, ", expected it positive");

  const std::vector<double> values = maps.value().to_vector(), wanted = targets.to_vector();
  std::vector<double> scale(static_cast<size_t>(n * pixels)), target(scale.size()), weight(scale.size());
  Imitation result;
  for (int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<size_t>(i * pixels);
    const double* from = &wanted[at];
    const double peak = *std::max_element(from, from + pixels),
                 p = o.exponents[o.exponents.size() == 1 ? 0 : static_cast<size_t>(i)];
    std::vector<int64_t> chosen = largest(from, pixels, k);
    double norm = 0, own_peak = 0;
    for (const int64_t pixel : chosen) {
      const auto j = at + static_cast<size_t>(pixel);
      target[j] = std::pow(wanted[j] / peak, p);
      norm += target[j] * target[j];
    }
    // Without top-k, or with nothing to choose from, all pixels count.
    if (o.top_k <= 0 || chosen.empty()) {
      chosen.resize(static_cast<size_t>(pixels));
      std::iota(chosen.begin(), chosen.end(), 0);
    }
    for (const int64_t pixel : chosen) own_peak = std::max(own_peak, values[at + static_cast<size_t>(pixel)]);
    const bool empty = norm == 0 || own_peak == 0;
    result.empty += empty;
    for (const int64_t pixel : chosen) {
      const auto j = at + static_cast<size_t>(pixel);
      if (norm > 0) target[j] /= std::sqrt(norm);
      scale[j] = own_peak > 0 ? 1 / own_peak : 1;
      weight[j] =
          empty && o.skip_empty ? 0 : 1 / static_cast<double>(n * static_cast<int64_t>(chosen.size()));
    }
  }
  const auto constant = [&](const std::vector<double>& x) {
    return Tensor(cast(Array::of(x, {n, pixels}), maps.dtype()));
  };
  const Tensor m = l2_normalise(reshape(maps, {n, pixels}) * constant(scale), {-1}, 1e-12);
  result.loss = sum(square(m - constant(target)) * constant(weight));
  return result;
}

Array quad_tree(const Array& maps, double tolerance, int levels) {
  check_maps("quad_tree", maps.shape(), maps.shape());
  check(tolerance >= 0 && levels >= 0, "[quad_tree] got tolerance ", tolerance, " and ", levels,
        " levels, expected both at least 0");
  const int64_t h = maps.dim(1), w = maps.dim(2);
  Array cells(maps.shape(), DType::s32);
  for (int64_t i = 0; i < maps.dim(0); ++i) {
    const std::vector<double> map = image_of(maps, i);
    int32_t* cell = cells.data<int32_t>() + i * h * w;
    const double most = map.empty() ? 0 : *std::max_element(map.begin(), map.end());
    struct Box {
      int64_t y0, y1, x0, x1;
      int level;
    };
    std::vector<Box> open = {{0, h, 0, w, 0}};
    while (!open.empty()) {
      const Box b = open.back();
      open.pop_back();
      if (b.y0 == b.y1 || b.x0 == b.x1) continue;
      double low = INFINITY, high = -INFINITY;
      for (int64_t y = b.y0; y < b.y1; ++y)
        for (int64_t x = b.x0; x < b.x1; ++x) {
          low = std::min(low, map[static_cast<size_t>(y * w + x)]);
          high = std::max(high, map[static_cast<size_t>(y * w + x)]);
        }
      const bool single = b.y1 - b.y0 == 1 && b.x1 - b.x0 == 1;
      if (!single && b.level < levels && high - low > tolerance * most) {
        const int64_t y = (b.y0 + b.y1 + 1) / 2, x = (b.x0 + b.x1 + 1) / 2;
        for (const auto& [y0, y1] : {std::pair{b.y0, y}, std::pair{y, b.y1}})
          for (const auto& [x0, x1] : {std::pair{b.x0, x}, std::pair{x, b.x1}})
            open.push_back({y0, y1, x0, x1, b.level + 1});
        continue;
      }
      for (int64_t y = b.y0; y < b.y1; ++y)
        for (int64_t x = b.x0; x < b.x1; ++x) cell[y * w + x] = static_cast<int32_t>(b.y0 * w + b.x0);
    }
  }
  return cells;
}

Tensor cell_means(const Tensor& maps, const Array& cells) {
  check_maps("cell_means", maps.shape(), cells.shape());
  const Shape flat = {maps.dim(0), maps.dim(1) * maps.dim(2)};
  const Tensor index = cells.reshape(flat), ones = Array::full(flat, 1, maps.dtype());
  const Tensor sums = gather(scatter_add(reshape(maps, flat), index, flat[1]), index);
  return reshape(sums / gather(scatter_add(ones, index, flat[1]), index), maps.shape());
}

std::vector<double> spearman(const Array& maps, const Array& others) {
  check_maps("spearman", maps.shape(), others.shape());
  std::vector<double> result;
  for (int64_t i = 0; i < maps.dim(0); ++i)
    result.push_back(correlation(average_ranks(image_of(maps, i)), average_ranks(image_of(others, i))));
  return result;
}

std::vector<double> rank_errors(const Array& maps, const Array& targets, int64_t top_k) {
  check_maps("rank_errors", maps.shape(), targets.shape());
  const int64_t pixels = maps.dim(1) * maps.dim(2);
  std::vector<double> result;
  for (int64_t i = 0; i < maps.dim(0); ++i) {
    const std::vector<double> own = average_ranks(image_of(maps, i)),
                              wanted = average_ranks(image_of(targets, i));
    // Ranks are positive, so all pixels can be chosen.
    const std::vector<int64_t> chosen = largest(wanted.data(), pixels, top_k > 0 ? top_k : pixels);
    double total = 0;
    for (const int64_t p : chosen)
      total += std::abs(own[static_cast<size_t>(p)] - wanted[static_cast<size_t>(p)]);
    result.push_back(total / static_cast<double>(chosen.size()) / static_cast<double>(pixels));
  }
  return result;
}

std::vector<double> entropies(const Array& maps) {
  check_maps("entropies", maps.shape(), maps.shape());
  std::vector<double> result;
  for (int64_t i = 0; i < maps.dim(0); ++i) {
    const std::vector<double> map = image_of(maps, i);
    const double total = std::accumulate(map.begin(), map.end(), 0.0);
    double entropy = 0;
    for (const double value : map)
      if (value > 0) entropy -= value / total * std::log(value / total);
    result.push_back(total > 0 ? entropy : NAN);
  }
  return result;
}

double mean_of_numbers(const std::vector<double>& values) {
  double total = 0, count = 0;
  for (const double value : values)
    if (!std::isnan(value)) total += value, ++count;
  return count > 0 ? total / count : NAN;
}

namespace {

Array input_gradient(Model& model, const Array& images, const Array& labels) {
  const Evaluation evaluation(model);
  const RecordingScope tape(Recording::tape);
  const Tensor x = Tensor::leaf(images);
  const Tensor logits = cast(model(x), images.dtype());
  return grad(cross_entropy(logits, labels), x).value();
}

}  // namespace

double input_gradient_mismatch(Model& model, Model& other, const Array& images, const Array& labels) {
  const Array a = input_gradient(model, images, labels), b = input_gradient(other, images, labels);
  double distances = 0, lengths = 0;
  for (int64_t i = 0; i < a.dim(0); ++i) {
    const std::vector<double> g = image_of(a, i), h = image_of(b, i);
    double distance = 0, length = 0;
    for (size_t j = 0; j < g.size(); ++j) {
      distance += (g[j] - h[j]) * (g[j] - h[j]);
      length += g[j] * g[j];
    }
    distances += std::sqrt(distance);
    lengths += std::sqrt(length);
  }
  return lengths > 0 ? distances / lengths : NAN;
}

}  // namespace stairgrad::nn
