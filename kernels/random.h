// Counter-based random numbers: a value depends on (seed, stream, index) alone, so neither threads nor loader
// workers nor the order of calls can change it.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

#include "array.h"

namespace stairgrad {

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11).
class Philox {
 public:
  explicit Philox(uint64_t seed, uint64_t stream = 0) : seed_(seed), stream_(stream) {}

  /// Four independent 32-bit words for one index.
  std::array<uint32_t, 4> words(uint64_t index) const {
    std::array<uint32_t, 4> c = {static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
                                 static_cast<uint32_t>(stream_), static_cast<uint32_t>(stream_ >> 32)};
    auto k0 = static_cast<uint32_t>(seed_), k1 = static_cast<uint32_t>(seed_ >> 32);
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53u} * c[0], p1 = uint64_t{0xCD9E8D57u} * c[2];
      c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
           static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return c;
  }

  /// Uniform in [0, 1).
  double uniform(uint64_t index) const {
    const auto w = words(index);
    return static_cast<double>((uint64_t{w[0]} << 21) ^ (w[1] >> 11)) * 0x1p-53;
  }
  /// Uniform integer in [0, n).
  uint64_t below(uint64_t index, uint64_t n) const {
    return static_cast<uint64_t>(uniform(index) * static_cast<double>(n));
  }
  /// Standard normal, by Box and Muller.
  double normal(uint64_t index) const {
    const auto w = words(index);
    const double u = (w[0] + 1.0) * 0x1p-32, v = w[1] * 0x1p-32;
    return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
  }

 private:
  uint64_t seed_, stream_;
};

/// Random numbers one after another, of one stream from its number `first` on.
class RandomSequence {
 public:
  explicit RandomSequence(Philox rng, uint64_t first = 0) : rng_(rng), next_(first) {}

  /// Uniform in [0, 1).
  double uniform() { return rng_.uniform(next_++); }
  /// Uniform in [low, high).
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  /// Uniform in 0 .. n-1.
  int64_t below(int64_t n) { return static_cast<int64_t>(rng_.below(next_++, static_cast<uint64_t>(n))); }
  /// Standard normal.
  double normal() { return rng_.normal(next_++); }
  /// From the gamma distribution of this shape, above 0, and scale 1 (Marsaglia and Tsang, "A simple method
  /// for generating gamma variables", 2000; below 1 by their boost).
  double gamma(double shape);
  /// From the Beta(alpha, alpha) distribution, alpha above 0 (Joehnk's method).
  double beta(double alpha);

 private:
  Philox rng_;
  uint64_t next_;
};

/// A stream number for a name, so that a layer's initial values do not depend on which layers were made
/// before it.
constexpr uint64_t stream_of(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

/// Standard normal values times `scale`, of a floating type.
Array random_normal(Shape shape, Philox rng, double scale = 1, DType dtype = DType::f32);
/// Uniform values in [low, high), of a floating type.
Array random_uniform(Shape shape, Philox rng, double low = 0, double high = 1, DType dtype = DType::f32);
/// A permutation of 0 .. n-1 (Fisher and Yates).
std::vector<int64_t> random_permutation(int64_t n, Philox rng);

}  // namespace stairgrad
