#include "observed.h"

#include <algorithm>

#include "../../kernels/same_bytes.h"
#include "ranges.h"

namespace stairgrad::quant {

Observed::Observed(const QuantizerOptions& options, int64_t channels)
    : Quantizer(options, channels),
      observer_(options.settings.choice("range")),
      low_(add_buffer("l", {groups()})),
      high_(add_buffer("u", {groups()})),
      batches_(add_buffer("batches", {1})) {
  if (observer_ == "mqbench") observer_ = options.weight ? "sigma" : "image_mean";
}

Grids Observed::grids(const Arrays&) const {
  Grids all;
  const std::vector<double> low = low_.to_vector(), high = high_.to_vector();
  for (size_t g = 0; g < low.size(); ++g)
    all.push_back(symmetric() ? symmetric_grid(high[g], options().bits)
                              : zero_grid(low[g], high[g], options().bits));
  return all;
}

void Observed::observe(const Array& x) {
  if (!options().weight && !(training() && options().learn)) return;
  if (!training() && same_bytes(followed_, x) && found_ == high_.version()) return;
  follow(x);
}

void Observed::follow(const Array& x) {
  followed_ = options().weight && !training() ? x.clone() : Array();
  const bool image_mean = observer_ == "image_mean";
  const auto observer = make_observer(options().weight && image_mean ? "minmax" : observer_,
                                      {.bits = options().bits,
                                       .symmetric = symmetric(),
                                       .groups = groups(),
                                       .percentile = options().settings.number("percentile"),
                                       .sigmas = options().settings.number("sigmas")});
  try {
    observer->observe(x);
  } catch (const numeric_error&) {
    return;  // a diverged batch says nothing about the range
  }
  Ranges ranges = observer->ranges();
  if (!options().weight) {
    const double low = low_.item(), high = high_.item();
    double batches = batches_.item();
    if (observer_ == "minmax") {
      ranges = {{std::min(ranges[0].low, low), std::max(ranges[0].high, high)}};
    } else {
      Ranges average = {{low, high}};
      average_in(average, ranges, batches, 0.9);
      ranges = average;
    }
    batches_.assign(Array::full({1}, batches, batches_.dtype()));
  }
  std::vector<double> low, high;
  for (const ValueRange& r : ranges) {
    low.push_back(r.low);
    high.push_back(r.high);
  }
  low_.assign(cast(Array::of(low), low_.dtype()));
  high_.assign(cast(Array::of(high), high_.dtype()));
  found_ = high_.version();
}

std::vector<SettingRule> range_rules(const std::string& first, double sigmas) {
  std::vector<std::string> words = observer_names();
  words.push_back("mqbench");
  std::stable_partition(words.begin(), words.end(), [&](const std::string& word) { return word == first; });
  return {SettingRule::choice("range", words), SettingRule::number("sigmas", sigmas, 0.1, 100),
          SettingRule::number("percentile", 99.99, 50, 100)};
}

}  // namespace stairgrad::quant
