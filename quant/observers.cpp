#include "observers.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "../kernels/nearest.h"
#include "../kernels/reduce.h"
#include "quantizers/backward.h"
#include "quantizers/ranges.h"

namespace stairgrad::quant {
namespace {

// Smallest and largest value of each of `groups` slices; NaN if there is one.
Ranges extremes_of(const Array& x, int64_t groups) {
  const Array slices = x.reshape({groups, x.size() / groups});
  const std::vector<double> low = kernels::reduce(kernels::Reduction::min, slices, {1}).to_vector(),
                            high = kernels::reduce(kernels::Reduction::max, slices, {1}).to_vector();
  Ranges ranges;
  for (size_t g = 0; g < low.size(); ++g) ranges.push_back({low[g], high[g]});
  return ranges;
}

ValueRange hull(const ValueRange& a, const ValueRange& b) {
  return {std::min(a.low, b.low), std::max(a.high, b.high)};
}
ValueRange within(const ValueRange& a, const ValueRange& b) {
  return {std::max(a.low, b.low), std::min(a.high, b.high)};
}

class Extremes : public Observer {
 public:
  using Observer::Observer;

 protected:
  void see(const Array&, const Ranges& extremes) override {
    if (all_.empty()) all_ = extremes;
    for (size_t g = 0; g < all_.size(); ++g) all_[g] = hull(all_[g], extremes[g]);
  }
  Ranges found() const override { return all_; }

 private:
  Ranges all_;
};

class Average final : public Observer {
 public:
  using Observer::Observer;

 private:
  void see(const Array&, const Ranges& extremes) override {
    average_in(average_, extremes, batches_, options().momentum);
  }
  Ranges found() const override { return average_; }

  Ranges average_;
  double batches_ = 0;
};

// GDFQ's average, and that of its descendants: the bias correction goes into what is averaged next, so ranges
// explode (by 3945 after 22 batches of the same data) before they settle after about 150.
class CompatibleAverage final : public Observer {
 public:
  using Observer::Observer;

 private:
  void see(const Array&, const Ranges& extremes) override {
    if (average_.empty()) average_.resize(extremes.size());
    const double momentum = options().momentum;
    decay_ *= momentum;
    for (size_t g = 0; g < average_.size(); ++g) {
      average_[g].low = (momentum * average_[g].low + (1 - momentum) * extremes[g].low) / (1 - decay_);
      average_[g].high = (momentum * average_[g].high + (1 - momentum) * extremes[g].high) / (1 - decay_);
    }
  }
  Ranges found() const override { return average_; }

  Ranges average_;
  double decay_ = 1;
};

class ImageMean final : public Observer {
 public:
  using Observer::Observer;

 private:
  void see(const Array& x, const Ranges&) override {
    check(options().groups == 1, "[observer] image_mean is for activations: got ", options().groups,
          " groups, expected one range for the tensor");
    for (const ValueRange& image : extremes_of(x, x.rank() == 0 ? 1 : x.dim(0))) {
      ++images_;
      mean_.low += (image.low - mean_.low) / images_;
      mean_.high += (image.high - mean_.high) / images_;
    }
  }
  Ranges found() const override { return {mean_}; }

  ValueRange mean_;
  double images_ = 0;
};

class Sigma final : public Extremes {
 public:
  explicit Sigma(const ObserverOptions& options)
      : Extremes(options), moments_(static_cast<size_t>(options.groups)) {}

 private:
  struct Moments {
    double count = 0, mean = 0, squares = 0;  // squares: of the deviations from the mean
  };

  void see(const Array& x, const Ranges& extremes) override {
    Extremes::see(x, extremes);
    const std::vector<Statistics> batch = statistics(x, options().groups);
    const double count = static_cast<double>(x.size() / options().groups);
    for (size_t g = 0; g < moments_.size(); ++g) {  // Chan et al., 1983
      Moments& m = moments_[g];
      const double distance = batch[g].mean - m.mean, total = m.count + count;
      m.squares +=
          batch[g].deviation * batch[g].deviation * count + distance * distance * m.count * count / total;
      m.mean += distance * count / total;
      m.count = total;
    }
  }
  Ranges found() const override {
    Ranges ranges = Extremes::found();
    for (size_t g = 0; g < moments_.size(); ++g) {
      const double reach = options().sigmas * std::sqrt(moments_[g].squares / moments_[g].count);
      ranges[g] = within({moments_[g].mean - reach, moments_[g].mean + reach}, ranges[g]);
    }
    return ranges;
  }

  std::vector<Moments> moments_;
};

struct Bin {
  double value, count;
};
using Bins = std::vector<Bin>;

// How often values occur, in bins centred on multiples of a width. It doubles when a larger value arrives,
// and every second bin is then shared out to its neighbours.
class Histogram {
 public:
  static constexpr int half = 2048;  // bins to either side of zero

  void add(const float* x, int64_t n, double largest) {
    if (width_ == 0) width_ = std::max(largest, smallest_range) / half;
    while (largest > 1.000001 * width_ * half) widen();
    const double inverse = 1 / width_;
    const auto bin = [=](int64_t i) { return bin_of(static_cast<double>(x[i]) * inverse); };
    int64_t i = 0;
    if (n > 16 * half) {
      // Four tables, because a count waits for the one before it in the same place, and zeros are many.
      std::array<std::array<int64_t, bins_>, 4> counts{};
      for (; i + 4 <= n; i += 4)
        for (int64_t k = 0; k < 4; ++k) ++counts[static_cast<size_t>(k)][bin(i + k)];
      for (size_t b = 0; b < bins_; ++b)
        counts_[b] += static_cast<double>(counts[0][b] + counts[1][b] + counts[2][b] + counts[3][b]);
    }
    for (; i < n; ++i) counts_[bin(i)] += 1;
  }

  // Those that hold something, in ascending order.
  Bins bins() const {
    Bins all;
    for (int i = -half; i <= half; ++i)
      if (const double count = counts_[static_cast<size_t>(i + half)]; count > 0)
        all.push_back({i * width_, count});
    return all;
  }
  // Counts of |x| at 0, width(), ..., half * width().
  std::vector<double> magnitudes() const {
    std::vector<double> all(counts_.begin() + half, counts_.end());
    for (size_t i = 1; i <= half; ++i) all[i] += counts_[half - i];
    return all;
  }
  double width() const { return width_; }

 private:
  static constexpr size_t bins_ = 2 * half + 1;

  // Half to even, as grid::round_saturate() does it.
  static size_t bin_of(double t) {
    constexpr double shift = 0x1.8p52;
    return static_cast<size_t>(static_cast<int>((std::clamp<double>(t, -half, half) + shift) - shift) + half);
  }

  void widen() {
    std::vector<double> wide(counts_.size());
    for (int i = -half; i <= half; ++i) {
      const double count = counts_[static_cast<size_t>(i + half)] / 2;
      wide[static_cast<size_t>((i + 2 * half) / 2)] += count;
      wide[static_cast<size_t>((i + 2 * half + 1) / 2)] += count;
    }
    counts_ = std::move(wide);
    width_ *= 2;
  }

  double width_ = 0;
  std::vector<double> counts_ = std::vector<double>(bins_);
};

// Finds a range from the histogram of everything seen.
class ByHistogram : public Extremes {
 public:
  explicit ByHistogram(const ObserverOptions& options)
      : Extremes(options), histograms_(static_cast<size_t>(options.groups)) {}

 private:
  virtual ValueRange search(const Histogram& histogram, const ValueRange& extremes) const = 0;

  void see(const Array& x, const Ranges& extremes) final {
    Extremes::see(x, extremes);
    const Array values = cast(x, DType::f32);
    const int64_t size = x.size() / options().groups;
    for (size_t g = 0; g < histograms_.size(); ++g)
      histograms_[g].add(values.data<float>() + static_cast<int64_t>(g) * size, size,
                         std::max(-extremes[g].low, extremes[g].high));
  }
  Ranges found() const final {
    Ranges ranges = Extremes::found();
    for (size_t g = 0; g < histograms_.size(); ++g)
      ranges[g] = within(search(histograms_[g], ranges[g]), ranges[g]);
    return ranges;
  }

  std::vector<Histogram> histograms_;
};

class Percentile final : public ByHistogram {
 public:
  using ByHistogram::ByHistogram;

 private:
  // The smallest value with at least `share` of all values at or below it.
  static double quantile(const Bins& bins, double share) {
    double total = 0, below = 0;
    for (const Bin& bin : bins) total += bin.count;
    for (const Bin& bin : bins) {
      below += bin.count;
      if (below >= share * total) return bin.value;
    }
    return bins.back().value;
  }
  ValueRange search(const Histogram& histogram, const ValueRange& extremes) const override {
    const double share = options().percentile / 100;
    if (options().symmetric) {
      Bins magnitudes;
      for (const double count : histogram.magnitudes())
        magnitudes.push_back({static_cast<double>(magnitudes.size()) * histogram.width(), count});
      const double u = quantile(magnitudes, share);
      return {-u, u};
    }
    const Bins bins = histogram.bins();
    if (extremes.low >= 0) return {0, quantile(bins, share)};
    return {quantile(bins, (1 - share) / 2), quantile(bins, (1 + share) / 2)};
  }
};

class LeastError final : public ByHistogram {
 public:
  using ByHistogram::ByHistogram;

 private:
  ValueRange search(const Histogram& histogram, const ValueRange& extremes) const override {
    const Bins bins = histogram.bins();
    ValueRange all{std::min(extremes.low, 0.0), std::max(extremes.high, 0.0)};
    if (options().symmetric) {
      all.high = std::max(all.high, -all.low);
      all.low = -all.high;
    }
    std::vector<float> values, counts;  // the largest first: they soon tell that a range is too narrow
    for (auto bin = bins.rbegin(); bin != bins.rend(); ++bin) {
      values.push_back(static_cast<float>(bin->value));
      counts.push_back(static_cast<float>(bin->count));
    }
    const auto grid_of = [&](double octave) {
      const double factor = std::exp2(octave);
      return options().symmetric ? symmetric_grid(factor * all.high, options().bits)
                                 : zero_grid(factor * all.low, factor * all.high, options().bits);
    };
    const auto exact = [&](const Grid& g) {
      const float inverse = grid::inverse(g.scale);
      double sum = 0;
      for (auto bin = bins.rbegin(); bin != bins.rend(); ++bin) {
        const double level = grid::decode(grid::encode(static_cast<float>(bin->value), g, inverse), g);
        sum += bin->count * std::pow((bin->value - level) * (bin->value - level), options().power / 2);
      }
      return sum;
    };
    // Four factors an octave from 1 down to 2^-10, then steps of 1/64 octave around the best. What is not
    // told apart by a quick sum is by an exact one.
    const auto best = [&](double centre, double step, int from, int to) {
      constexpr double slack = 1 + 1e-4;
      std::vector<std::pair<double, double>> found;  // octave and error
      double least = HUGE_VAL, least_exact = HUGE_VAL, where = centre;
      for (int i = to; i >= from; --i) {
        const double octave = std::min(centre + i * step, 0.0);
        const double about = rounding_error(values, counts, grid_of(octave), options().power, slack * least);
        found.emplace_back(octave, about);
        least = std::min(least, about);
      }
      for (const auto& [octave, about] : found) {
        if (about > slack * least) continue;
        const double e = exact(grid_of(octave));
        if (e > least_exact) continue;
        least_exact = e;
        where = octave;
      }
      return where;
    };
    const double factor = std::exp2(best(best(0, 0.25, -40, 0), 1.0 / 64, -16, 16));
    return {factor * all.low, factor * all.high};
  }
};

class Divergence final : public ByHistogram {
 public:
  using ByHistogram::ByHistogram;

 private:
  // KL divergence of the first n bins, with what lies beyond in the last one, from the same bins in `levels`
  // groups of one height each (empty bins stay empty).
  static double divergence(const std::vector<double>& counts, size_t n, size_t levels) {
    std::vector<double> p(counts.begin(), counts.begin() + static_cast<std::ptrdiff_t>(n)), q(n);
    double inside = 0, total = 0;
    for (const double count : p) inside += count;
    for (const double count : counts) total += count;
    p.back() += total - inside;
    for (size_t level = 0; level < levels; ++level) {
      const size_t begin = level * n / levels, end = (level + 1) * n / levels;
      double sum = 0, filled = 0;
      for (size_t i = begin; i < end; ++i) {
        sum += counts[i];
        filled += counts[i] > 0;
      }
      for (size_t i = begin; i < end; ++i) q[i] = counts[i] > 0 ? sum / filled : 0;
    }
    double result = 0;
    for (size_t i = 0; i < n; ++i)
      if (p[i] > 0) result += p[i] / total * std::log(p[i] / total / std::max(q[i] / inside, 1e-12));
    return result;
  }
  ValueRange search(const Histogram& histogram, const ValueRange& extremes) const override {
    // A range with a sign has half of its levels on either side of zero.
    const bool both = options().symmetric || extremes.low < 0;
    const size_t levels = size_t{1} << std::max(1, options().bits - (both ? 1 : 0));
    const std::vector<double> counts = histogram.magnitudes();
    size_t best = counts.size();
    double least = HUGE_VAL;
    for (size_t n = counts.size(); n >= std::max<size_t>(levels, 16); n -= 16) {
      const double d = divergence(counts, n, levels);
      if (d < least) {
        least = d;
        best = n;
      }
    }
    const double reach = static_cast<double>(best - 1) * histogram.width();
    return {-reach, reach};
  }
};

template <class Kind>
std::unique_ptr<Observer> make(const ObserverOptions& options) {
  return std::make_unique<Kind>(options);
}

struct Entry {
  const char* name;
  std::unique_ptr<Observer> (*make)(const ObserverOptions&);
};
constexpr Entry entries[] = {{"minmax", make<Extremes>},
                             {"ema", make<Average>},
                             {"ema_compat", make<CompatibleAverage>},
                             {"image_mean", make<ImageMean>},
                             {"percentile", make<Percentile>},
                             {"sigma", make<Sigma>},
                             {"mse", make<LeastError>},
                             {"kl", make<Divergence>}};

}  // namespace

void Observer::observe(const Array& x) {
  check(x.size() > 0 && x.size() % options_.groups == 0, "[observer] got the shape ", x.shape(),
        ", expected elements in ", options_.groups, " equal slices");
  const Ranges extremes = extremes_of(x, options_.groups);
  for (const ValueRange& r : extremes)
    if (!std::isfinite(r.low) || !std::isfinite(r.high))
      throw numeric_error(text("[observer] NaN or infinity in data of shape ", x.shape(),
                               "; look for a layer that diverged"));
  see(x, extremes);
  seen_ = true;
}

Ranges Observer::ranges() const {
  check(seen_, "[observer] ranges() before observe(): show it some data first");
  Ranges ranges = found();
  for (ValueRange& r : ranges) {
    if (options_.symmetric) {
      r.high = std::max(r.high, -r.low);
      r.low = -r.high;
    } else {
      r = {std::min(r.low, 0.0), std::max(r.high, 0.0)};
    }
  }
  return ranges;
}

void average_in(Ranges& average, const Ranges& newest, double& batches, double momentum) {
  average.resize(newest.size());
  ++batches;
  const double weight = (1 - momentum) / (1 - std::pow(momentum, batches));
  for (size_t g = 0; g < newest.size(); ++g) {
    average[g].low += weight * (newest[g].low - average[g].low);
    average[g].high += weight * (newest[g].high - average[g].high);
  }
}

std::unique_ptr<Observer> make_observer(const std::string& name, const ObserverOptions& options) {
  check(options.bits >= 1 && options.bits <= 8 && options.groups >= 1, "[observer] got ", options.bits,
        " bits and ", options.groups, " groups, expected 1 .. 8 and at least 1");
  std::string known;
  for (const Entry& entry : entries) {
    if (name == entry.name) return entry.make(options);
    known += text(known.empty() ? "" : ", ", entry.name);
  }
  throw argument_error(text("[observer] got the name '", name, "', did you mean '",
                            nearest(name, observer_names()), "'? Expected one of: ", known));
}

std::vector<std::string> observer_names() {
  std::vector<std::string> names;
  for (const Entry& entry : entries) names.push_back(entry.name);
  return names;
}

}  // namespace stairgrad::quant
