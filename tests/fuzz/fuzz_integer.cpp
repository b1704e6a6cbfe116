// Damaged integer models: whatever the bytes are, the loader returns a model or throws format_error, and what
// is accepted runs. Memory errors are the sanitizers' to find.
#include <doctest/doctest.h>

#include <chrono>

#include "data/formats/file.h"
#include "integer_models.h"
#include "kernels/random.h"
#include "repair.h"
#include "setting.h"

using namespace stairgrad;
using data::Bytes;

namespace {

/// What integer_codes writes: every layer and option.
Bytes integer_model() {
  return data::read_file(std::string(TEST_FILES) + "/fuzz/corpus/integer/every_layer.safetensors");
}

/// What became of damaged models.
struct Outcome {
  std::string what;
  uint64_t count = 0, ran = 0, refused = 0;

  void take(const Bytes& damaged) {
    ++count;
    try {
      ran += run_integer_model(damaged);
    } catch (const format_error&) {
      ++refused;
    } catch (const std::exception& error) {
      FAIL(what << " " << count - 1 << ": got \"" << error.what() << "\", expected a format_error");
    }
  }
  void check() const {
    MESSAGE(what << ": " << count << " damaged files, " << refused << " refused, " << ran << " ran");
    CHECK(ran > 0);
    CHECK(refused > 0);
  }
};

}  // namespace

// FUZZ_FLIPS single bytes are changed, one after another, most of them under right checksums; whatever is
// accepted is run.
TEST_CASE("integer models with a changed byte") {
  const Bytes whole = integer_model();
  REQUIRE(run_integer_model(whole));
  const Philox rng(static_cast<uint64_t>(setting("FUZZ_SEED", 0)), stream_of("integer"));
  const auto flips = static_cast<uint64_t>(setting("FUZZ_FLIPS", 1'000'000));
  Outcome outcome{"changed byte"};
  for (uint64_t i = 0; i < flips; ++i) {
    Bytes damaged = whole;
    damaged[rng.below(2 * i, damaged.size())] ^= static_cast<uint8_t>(1 + rng.below(2 * i + 1, 255));
    if (i % 8 > 0) data::repair_integer(damaged.data(), damaged.size());
    outcome.take(damaged);
  }
  outcome.check();
}

TEST_CASE("integer models with a damaged graph") {
  const Bytes whole = integer_model();
  const Philox rng(static_cast<uint64_t>(setting("FUZZ_SEED", 0)), stream_of("graph"));
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(setting("FUZZ_SECONDS", 60));
  Outcome outcome{"damaged graph"};
  while (std::chrono::steady_clock::now() < end) {
    uint64_t index = outcome.count << 20;
    outcome.take(damage_graph(whole, rng, index));
  }
  outcome.check();
}
