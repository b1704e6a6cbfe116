#include "site_statistics.h"

#include <algorithm>
#include <numeric>

#include "../autograd/recorder.h"

namespace stairgrad::quant {
namespace {

// Fills in what the tensor says.
void measure(SiteStatistics& result, const Array& x, const Quantized& q) {
  const Array before = cast(x, DType::f32), after = cast(q.value.value(), DType::f32);
  const float *from = before.data<float>(), *to = after.data<float>();
  const auto slices = static_cast<int64_t>(q.grids.size());
  double energy = 0, clipping = 0, rounding = 0;
  int64_t saturated = 0;
  for (int64_t i = 0; i < x.size(); ++i) {
    const Grid& g = q.grids[static_cast<size_t>(i * slices / x.size())];
    const double value = from[i], position = value / g.scale + g.zero_point, difference = to[i] - value;
    const bool beyond = position < g.lo - 0.5 || position > g.hi + 0.5;
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

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// Fills in what the quantizer says.
void describe(SiteStatistics& result, const Quantizer& quantizer) {
  for (const nn::NamedTensor& p : quantizer.parameters())
    result.learned[p.name] = mean(p.tensor.value().to_vector());
  std::vector<double> low, high;
  for (const Grid& g : quantizer.to_grid()) {
    low.push_back(grid::decode(g.lo, g));
    high.push_back(grid::decode(g.hi, g));
  }
  result.low = mean(low);
  result.high = mean(high);
}

}  // namespace

std::vector<SiteStatistics> site_statistics(nn::Model& model, const Sites& sites, const Array& images) {
  std::map<std::string, SiteStatistics> found;
  {
    const SiteVisitor visitor(model, [&](const std::string& site, const Tensor& x, const Quantized& q) {
      if (q.on_grid()) measure(found[site], x.value(), q);
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
    describe(s, *site.quantizer);
    all.push_back(s);
  }
  return all;
}

}  // namespace stairgrad::quant
