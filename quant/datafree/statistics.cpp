#include "statistics.h"

#include <algorithm>
#include <cmath>

#include "../../autograd/ops.h"
#include "../moments.h"

namespace stairgrad::quant::datafree {
namespace {

// ZeroQ's: keeps the slope of the square root finite.
constexpr double variance_floor = 1e-6;

double quantile(const Array& x, double share) {
  std::vector<double> values = x.to_vector();
  for (double& value : values) value = std::abs(value);
  const auto rank = static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::ranges::nth_element(values, values.begin() + rank);
  return values[static_cast<size_t>(rank)];
}

}  // namespace

StatisticsLoss::StatisticsLoss(nn::Model& model, const StatisticsOptions& options)
    : model_(model), options_(options), inputs_(model) {
  check(inputs_.layers() > 0,
        "[statistics] the model has no batch norms, whose statistics images could match; ",
        "give statistics_weight 0, so that labels and the prior of the input alone shape the images");
  check(options.slack >= 0 && options.slack < 1, "[statistics] slack: got the quantile ", options.slack,
        ", expected 0 <= slack < 1");
}

void StatisticsLoss::measure_slack(const Array& noise) {
  const NoGrad no_grad;
  margins_.clear();
  run([&](const Tensor& x) { return model_(x); }, noise);
  for (const Difference& d : differences())
    margins_.push_back(
        {quantile(d.mean.value(), options_.slack), quantile(d.spread.value(), options_.slack)});
}

Tensor StatisticsLoss::run(const std::function<Tensor(const Tensor&)>& forward, const Tensor& images) {
  check(!model_.training(),
        "[statistics] the model is in training mode; call eval(), or its running statistics drift");
  inputs_.clear();
  images_ = images;
  return forward(images);
}

std::vector<StatisticsLoss::Difference> StatisticsLoss::differences() const {
  std::vector<Difference> all;
  const bool batch = options_.law == StatisticsLaw::batch;
  const auto deviation = [](const Tensor& var) { return sqrt(var + variance_floor); };
  if (!batch) {
    const Moments m = image_moments(images_);
    all.push_back({m.mean, deviation(m.var) - 1});
  }
  for (const BatchNormInputs::Seen& s : inputs_.seen()) {
    const Moments m = batch ? batch_moments(s.x) : image_moments(s.x);
    const Tensor mean = s.norm->running_mean, var = s.norm->running_var;
    all.push_back({m.mean - mean, batch ? m.var - var : deviation(m.var) - deviation(var)});
  }
  return all;
}

Tensor StatisticsLoss::squared(const Tensor& difference, double margin, size_t layer) const {
  Tensor d = difference;
  if (margin > 0) d = relu(abs(d) - margin);
  if (options_.enhance && d.rank() == 2) {
    Array twice = Array::full({d.dim(0), 1}, 1, d.dtype());
    for (int64_t i = 0; i < d.dim(0); ++i)
      if (static_cast<size_t>(i) % (inputs_.layers() + 1) == layer)
        dispatch_floating(
            d.dtype(), [&](auto zero) { twice.data<decltype(zero)>()[i] = static_cast<decltype(zero)>(2); });
    d = d * Tensor(twice);
  }
  return options_.law == StatisticsLaw::batch ? mean(square(d))
                                              : sum(square(d)) / static_cast<double>(d.dim(0));
}

Tensor StatisticsLoss::value() const {
  const std::vector<Difference> all = differences();
  check(!all.empty(), "[statistics] nothing ran through the model; call run() first");
  Tensor total;
  for (size_t l = 0; l < all.size(); ++l) {
    const Margin margin = margins_.empty() ? Margin{} : margins_[l];
    const Tensor own = squared(all[l].mean, margin.mean, l) + squared(all[l].spread, margin.spread, l);
    total = total.defined() ? total + own : own;
  }
  return options_.law == StatisticsLaw::batch ? total / static_cast<double>(all.size()) : total;
}

}  // namespace stairgrad::quant::datafree
