#include "site_statistics.h"

#include <algorithm>
#include <numeric>

#include "../autograd/recorder.h"

namespace stairgrad::quant {
namespace {

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// The values that a slice of a tensor is quantized without saturating.
struct Inside {
  double low, high;
};

// Of every slice. Fills in the ends.
std::vector<Inside> insides(SiteStatistics& result, const Grids& grids, const Array& quantized) {
  if (grids.empty()) {
    const std::vector<double> levels = quantized.to_vector();
    const auto [low, high] = std::minmax_element(levels.begin(), levels.end());
    if (levels.empty()) return {{0, 0}};
    result.low = *low;
    result.high = *high;
    return {{*low, *high}};
  }
  std::vector<Inside> slices;
  std::vector<double> low, high;
  for (const Grid& g : grids) {
    low.push_back(grid::decode(g.lo, g));
    high.push_back(grid::decode(g.hi, g));
    const double half = g.scale / 2.0;
    slices.push_back({low.back() - half, high.back() + half});
  }
  result.low = mean(low);
  result.high = mean(high);
  return slices;
}

// Fills in what the tensor says. x: after the quantizer's transform.
void measure(SiteStatistics& result, const Array& x, const Quantized& q) {
  const Array before = cast(x, DType::f32), after = cast(q.value.value(), DType::f32);
  const float *from = before.data<float>(), *to = after.data<float>();
  const std::vector<Inside> slices = insides(result, q.grids, after);
  const auto count = static_cast<int64_t>(slices.size());
  double energy = 0, clipping = 0, rounding = 0;
  int64_t saturated = 0;
  for (int64_t i = 0; i < x.size(); ++i) {
    const Inside& inside = slices[static_cast<size_t>(i * count / x.size())];
    const double value = from[i], difference = to[i] - value;
    const bool beyond = value < inside.low || value > inside.high;
    (beyond ? clipping : rounding) += difference * difference;
    saturated += beyond;
    energy += value * value;
  }
  const double whole = energy > 0 ? energy : 1;
  result.clipping = clipping / whole;
  result.rounding = rounding / whole;
  result.error = result.clipping + result.rounding;
  result.saturated = static_cast<double>(saturated) / static_cast<double>(std::max<int64_t>(1, x.size()));
}

}  // namespace

std::vector<SiteStatistics> site_statistics(nn::Model& model, const Sites& sites, const Array& images) {
  std::map<std::string, std::shared_ptr<Quantizer>> quantizers;
  for (const Sites::Site& site : sites.sites()) quantizers[site.name] = site.quantizer;
  std::map<std::string, SiteStatistics> found;
  {
    const SiteVisitor visitor(model, [&](const nn::NamedTap& site, const Tensor& x, const Quantized& q) {
      const auto own = quantizers.find(site.name);  // a reader of a shared tensor has none
      if (own != quantizers.end()) measure(found[site.name], own->second->transform(x).value(), q);
    });
    const nn::Evaluation evaluation(model);
    const NoGrad no_grad;
    model(images);
  }
  std::vector<SiteStatistics> all;
  for (const Sites::Site& site : sites.sites()) {
    SiteStatistics& s = found[site.name];
    s.name = site.name;
    s.role = site.role;
    for (const nn::NamedTensor& p : site.quantizer->parameters())
      s.learned[p.name] = mean(p.tensor.value().to_vector());
    all.push_back(s);
  }
  return all;
}

}  // namespace stairgrad::quant
