#include "selection_metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <queue>

#include "../../kernels/random.h"
#include "../../kernels/reduce.h"
#include "../../nn/rank_statistics.h"

namespace stairgrad::quant::datafree {
namespace {

constexpr double undefined = std::numeric_limits<double>::quiet_NaN();

double ratio(int64_t part, int64_t whole) {
  return whole == 0 ? undefined : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

double Decisions::precision() const { return ratio(true_positive, true_positive + false_positive); }
double Decisions::recall() const { return ratio(true_positive, true_positive + false_negative); }
double Decisions::f1() const {
  return ratio(2 * true_positive, 2 * true_positive + false_positive + false_negative);
}

Decisions compare_decisions(const std::vector<bool>& chosen, const std::vector<bool>& needed) {
  check(chosen.size() == needed.size(), "[decisions] got ", chosen.size(), " decisions and ", needed.size(),
        " truths, expected as many of each");
  Decisions d;
  for (size_t i = 0; i < chosen.size(); ++i) {
    int64_t& count = chosen[i] ? (needed[i] ? d.true_positive : d.false_positive)
                               : (needed[i] ? d.false_negative : d.true_negative);
    ++count;
  }
  return d;
}

double roc_auc(const std::vector<double>& score, const std::vector<bool>& needed) {
  check(score.size() == needed.size(), "[roc_auc] got ", score.size(), " scores and ", needed.size(),
        " truths, expected as many of each");
  const std::vector<double> rank = nn::average_ranks(score);
  double sum = 0, positive = 0;
  for (size_t i = 0; i < rank.size(); ++i)
    if (needed[i]) {
      sum += rank[i];
      ++positive;
    }
  const double negative = static_cast<double>(rank.size()) - positive;
  if (positive == 0 || negative == 0) return undefined;
  return (sum - positive * (positive + 1) / 2) / (positive * negative);
}

Correlation spearman(const std::vector<double>& a, const std::vector<double>& b) {
  check(a.size() == b.size(), "[spearman] got ", a.size(), " and ", b.size(),
        " values, expected as many of each");
  const double n = static_cast<double>(a.size());
  const double rho = std::clamp(nn::correlation(nn::average_ranks(a), nn::average_ranks(b)), -1.0, 1.0);
  if (n < 4 || std::isnan(rho)) return {undefined, undefined, undefined};
  const double half = 1.959964 * std::sqrt((1 + rho * rho / 2) / (n - 3));
  if (std::abs(rho) == 1) return {rho, rho, rho};
  return {rho, std::tanh(std::atanh(rho) - half), std::tanh(std::atanh(rho) + half)};
}

std::vector<double> sensitivity(const Array& full, const Array& quantized) {
  check(full.rank() == 2 && full.shape() == quantized.shape(), "[sensitivity] got logits ", full.shape(),
        " and ", quantized.shape(), ", expected (n, classes) twice");
  const Array p = kernels::log_softmax(full), q = kernels::log_softmax(quantized);
  const int64_t classes = p.dim(1);
  std::vector<double> result;
  for (int64_t i = 0; i < p.dim(0); ++i) {
    double kl = 0;
    for (int64_t c = i * classes; c < (i + 1) * classes; ++c) {
      const double log_p = p.data<float>()[c];
      kl += std::exp(log_p) * (log_p - static_cast<double>(q.data<float>()[c]));
    }
    result.push_back(std::max(0.0, kl));
  }
  return result;
}

std::vector<bool> needs_bits(const Array& low, const Array& high, const std::vector<int32_t>& labels) {
  const Array few = kernels::argmax(low), many = kernels::argmax(high);
  check(few.size() == many.size() && few.size() == static_cast<int64_t>(labels.size()), "[needs_bits] got ",
        few.size(), " and ", many.size(), " rows of logits and ", labels.size(),
        " labels, expected as many of each");
  std::vector<bool> result;
  for (int64_t i = 0; i < few.size(); ++i) {
    const int32_t label = labels[static_cast<size_t>(i)];
    result.push_back(few.data<int32_t>()[i] != label && many.data<int32_t>()[i] == label);
  }
  return result;
}

double mean_cost(const Array& choices, const SiteCosts& cost) {
  const int64_t n = choices.dim(0), sites = choices.dim(1);
  double sum = 0;
  for (int64_t i = 0; i < n * sites; ++i)
    sum += cost[static_cast<size_t>(i % sites)][choices.data<uint8_t>()[i]];
  return sum / static_cast<double>(n);
}

Array shuffled_choices(const Array& choices, uint64_t seed) {
  const int64_t n = choices.dim(0), sites = choices.dim(1);
  const std::vector<int64_t> order = random_permutation(n, Philox(seed, stream_of("shuffled choices")));
  Array result(choices.shape(), DType::u8);
  for (int64_t i = 0; i < n; ++i)
    std::copy_n(choices.data<uint8_t>() + order[static_cast<size_t>(i)] * sites, sites,
                result.data<uint8_t>() + i * sites);
  return result;
}

Array static_choices(const Array& choices, const SiteCosts& cost) {
  const int64_t n = choices.dim(0), sites = choices.dim(1);
  std::vector<uint8_t> row(static_cast<size_t>(sites));
  std::vector<double> rest(static_cast<size_t>(sites));
  double spent = 0;
  for (int64_t s = 0; s < sites; ++s) {
    const auto site = static_cast<size_t>(s);
    double mean = 0;
    for (int64_t i = 0; i < n; ++i) mean += choices.data<uint8_t>()[i * sites + s];
    mean /= static_cast<double>(n);
    row[site] = static_cast<uint8_t>(mean);
    rest[site] = mean - row[site];
    spent += cost[site][row[site]];
  }
  const double budget = mean_cost(choices, cost) * (1 + 1e-9);
  std::vector<size_t> order(row.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return rest[a] > rest[b]; });
  for (const size_t s : order) {
    if (row[s] + 1u >= cost[s].size()) continue;
    const double more = cost[s][row[s] + 1u] - cost[s][row[s]];
    if (spent + more > budget) continue;
    spent += more;
    ++row[s];
  }
  Array result(choices.shape(), DType::u8);
  for (int64_t i = 0; i < n; ++i) std::ranges::copy(row, result.data<uint8_t>() + i * sites);
  return result;
}

Array oracle_choices(const std::vector<std::vector<double>>& gain, const SiteCosts& cost, double budget) {
  const auto n = static_cast<int64_t>(gain.size()), sites = static_cast<int64_t>(cost.size());
  check(n > 0 && sites > 0, "[oracle] got ", n, " images and ", sites, " sites, expected at least 1 of each");
  const size_t candidates = cost[0].size();
  std::vector<double> of_level(candidates);  // cost of an image with candidate k everywhere
  for (const std::vector<double>& site : cost)
    for (size_t k = 0; k < candidates; ++k) of_level[k] += site[k];
  struct Upgrade {
    double worth;
    size_t image, from, to;
    bool operator<(const Upgrade& other) const { return worth < other.worth; }
  };
  // The best next step of an image, which may skip a candidate that does not help.
  const auto best = [&](size_t image, size_t from) {
    Upgrade u{-HUGE_VAL, image, from, from};
    for (size_t k = from + 1; k < candidates; ++k) {
      const double worth =
          (gain[image][k] - gain[image][from]) / std::max(of_level[k] - of_level[from], 1e-300);
      if (worth > u.worth) u = {worth, image, from, k};
    }
    return u;
  };
  std::priority_queue<Upgrade> queue;
  std::vector<size_t> level(gain.size(), 0);
  for (size_t i = 0; i < gain.size(); ++i) queue.push(best(i, 0));
  double left = (budget - of_level[0]) * static_cast<double>(n);
  while (!queue.empty()) {
    const Upgrade u = queue.top();
    queue.pop();
    if (u.to == u.from || u.worth <= 0) continue;
    const double more = of_level[u.to] - of_level[u.from];
    if (more > left * (1 + 1e-9)) continue;
    left -= more;
    level[u.image] = u.to;
    queue.push(best(u.image, u.to));
  }
  Array result({n, sites}, DType::u8);
  for (int64_t i = 0; i < n; ++i)
    std::fill_n(result.data<uint8_t>() + i * sites, sites,
                static_cast<uint8_t>(level[static_cast<size_t>(i)]));
  return result;
}

}  // namespace stairgrad::quant::datafree
