#include "loops.h"

namespace stairgrad::quant::STAIRGRAD_ISA {
namespace {

constexpr int blocks = 16;              // of Philox, side by side
constexpr int64_t batch = blocks * 16;  // bytes that they give

// Philox4x32-10 (kernels/random.h) on consecutive counters.
void random_bytes(const Choice& choice, uint64_t counter, uint8_t* bytes) {
  uint32_t c0[blocks], c1[blocks], c2[blocks], c3[blocks];
  for (int b = 0; b < blocks; ++b) {
    const uint64_t index = counter + static_cast<uint64_t>(b);
    c0[b] = static_cast<uint32_t>(index);
    c1[b] = static_cast<uint32_t>(index >> 32);
    c2[b] = static_cast<uint32_t>(choice.stream);
    c3[b] = static_cast<uint32_t>(choice.stream >> 32);
  }
  auto k0 = static_cast<uint32_t>(choice.seed), k1 = static_cast<uint32_t>(choice.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int b = 0; b < blocks; ++b) {
      const uint64_t p0 = uint64_t{0xD2511F53u} * c0[b], p1 = uint64_t{0xCD9E8D57u} * c2[b];
      const uint32_t high0 = static_cast<uint32_t>(p0 >> 32), high1 = static_cast<uint32_t>(p1 >> 32);
      c0[b] = high1 ^ c1[b] ^ k0;
      c1[b] = static_cast<uint32_t>(p1);
      c2[b] = high0 ^ c3[b] ^ k1;
      c3[b] = static_cast<uint32_t>(p0);
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  for (int b = 0; b < blocks; ++b) {
    const uint32_t words[4] = {c0[b], c1[b], c2[b], c3[b]};
    __builtin_memcpy(bytes + 16 * b, words, 16);
  }
}

// body(i, bytes, count) over runs of elements and their random bytes.
template <class Body>
inline void with_bytes(int64_t first, int64_t n, const Choice& choice, Body body) {
  uint8_t bytes[batch];
  for (int64_t i = 0; i < n; i += batch) {
    random_bytes(choice, static_cast<uint64_t>(first + i) / 16, bytes);
    body(i, bytes, n - i < batch ? n - i : batch);
  }
}

void mix(const float* a, const float* b, float* y, int64_t first, int64_t n, const Choice& choice) {
  const int keep = choice.keep;
  with_bytes(first, n, choice, [=](int64_t i, const uint8_t* bytes, int64_t count) {
    for (int64_t j = 0; j < count; ++j) y[i + j] = bytes[j] < keep ? a[i + j] : b[i + j];
  });
}

void drop(const float* x, float* y, int64_t first, int64_t n, const Choice& choice, const Grid& grid,
          float inverse) {
  const int keep = choice.keep;
  const Grid g = grid;
  with_bytes(first, n, choice, [=](int64_t i, const uint8_t* bytes, int64_t count) {
    // All of them first: what rounds only where it is chosen branches, and half of the guesses are wrong.
    float quantized[batch];
    for (int64_t j = 0; j < count; ++j) quantized[j] = grid::decode(grid::encode(x[i + j], g, inverse), g);
    for (int64_t j = 0; j < count; ++j) y[i + j] = bytes[j] < keep ? quantized[j] : x[i + j];
  });
}

// Over a fixed number of lanes, in float over 512 elements and in double beyond: the same bits everywhere.
double squared_distance(const float* a, const float* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i += 512) {
    const int64_t end = n - i < 512 ? n - i : 512;
    float lane[16] = {};
    int64_t j = 0;
    for (; j + 16 <= end; j += 16)
      for (int64_t k = 0; k < 16; ++k) {
        const float d = a[i + j + k] - b[i + j + k];
        lane[k] += d * d;
      }
    for (; j < end; ++j) {
      const float d = a[i + j] - b[i + j];
      lane[j % 16] += d * d;
    }
    for (const float value : lane) sum += static_cast<double>(value);
  }
  return sum;
}

void scaled_difference(const float* a, const float* b, float* y, int64_t n, float factor) {
  for (int64_t i = 0; i < n; ++i) y[i] = (a[i] - b[i]) * factor;
}

}  // namespace

void enter_reconstruction(ReconstructionTable& table);
void enter_reconstruction(ReconstructionTable& table) {
  table = {mix, drop, squared_distance, scaled_difference};
}

}  // namespace stairgrad::quant::STAIRGRAD_ISA
