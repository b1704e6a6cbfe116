// The entry points of libFuzzer for integer models: what is accepted runs. Half of the changes are to bytes,
// half to the graph; the checksum is right after both.
#include <algorithm>

#include "integer_models.h"
#include "repair.h"

using namespace stairgrad;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  try {
    run_integer_model({bytes, bytes + size});
  } catch (const format_error&) {
  }
  return 0;
}

extern "C" size_t LLVMFuzzerMutate(uint8_t* bytes, size_t size, size_t most);

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* bytes, size_t size, size_t most, unsigned seed) {
  if (seed % 2 == 0) {
    uint64_t index = 0;
    const data::Bytes damaged = damage_graph({bytes, bytes + size}, Philox(seed), index);
    if (damaged.size() <= most) {
      std::ranges::copy(damaged, bytes);
      return damaged.size();
    }
  }
  const size_t changed = LLVMFuzzerMutate(bytes, size, most);
  data::repair_integer(bytes, changed);
  return changed;
}
