#include "peers.h"

#include <cmath>
#include <cstdlib>

#include "../../kernels/random.h"

namespace stairgrad::quant {

BitChoice uniform_choice(const SearchSpace& space, int64_t budget) {
  LayerBits best{0, 0};
  for (const int w : space.w_bits())
    for (const int a : space.a_bits()) {
      const int64_t own = space.bops({w, a}), other = best.w ? space.bops(best) : -1;
      if (own > budget) continue;
      if (own > other || (own == other && std::abs(w - a) < std::abs(best.w - best.a))) best = {w, a};
    }
  check(best.w > 0, "[search] no uniform bits of the candidates stay within ",
        in_giga(static_cast<double>(budget)), " BOPs");
  return BitChoice(space.layers().size(), best);
}

namespace {

// Probabilities ~ exp(theta b).
std::vector<double> tilted(const std::vector<int>& bits, double theta) {
  std::vector<double> p;
  double total = 0;
  for (const int b : bits) total += p.emplace_back(std::exp(theta * (b - bits.front())));
  for (double& value : p) value /= total;
  return p;
}
double expected(const std::vector<int>& bits, const std::vector<double>& p) {
  double mean = 0;
  for (size_t j = 0; j < bits.size(); ++j) mean += p[j] * bits[j];
  return mean;
}
int drawn(const std::vector<int>& bits, const std::vector<double>& p, double uniform) {
  for (size_t j = 0; j + 1 < bits.size(); ++j) {
    if (uniform < p[j]) return bits[j];
    uniform -= p[j];
  }
  return bits.back();
}

}  // namespace

BitChoice random_choice(const SearchSpace& space, int64_t low, int64_t high, uint64_t seed) {
  const std::vector<int>&w = space.w_bits(), &a = space.a_bits();
  const double middle = static_cast<double>(low + high) / 2 / static_cast<double>(space.bops({1, 1}));
  double below = -20, above = 20;
  for (int i = 0; i < 100; ++i) {
    const double theta = (below + above) / 2;
    (expected(w, tilted(w, theta)) * expected(a, tilted(a, theta)) < middle ? below : above) = theta;
  }
  const std::vector<double> p_w = tilted(w, below), p_a = tilted(a, below);
  const Philox rng(seed, stream_of("random policy"));
  constexpr uint64_t draws = 100000;
  BitChoice choice(space.layers().size());
  for (uint64_t draw = 0, at = 0; draw < draws; ++draw) {
    for (LayerBits& bits : choice) {
      bits.w = drawn(w, p_w, rng.uniform(at++));
      bits.a = drawn(a, p_a, rng.uniform(at++));
    }
    const int64_t bops = space.bops(choice);
    if (bops >= low && bops <= high) return choice;
  }
  throw argument_error(text("[search] none of ", draws, " random policies has BOPs from ",
                            in_giga(static_cast<double>(low)), " to ", in_giga(static_cast<double>(high))));
}

}  // namespace stairgrad::quant
