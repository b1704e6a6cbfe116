#include "simd.h"

#include <cstdlib>
#include <string_view>

namespace stairgrad::simd {

// Of table.cpp, one for each instruction set.
namespace baseline {
void fill(Table&);
}
#ifdef STAIRGRAD_X86
namespace avx2 {
void fill(Table&);
}
namespace avx512 {
void fill(Table&);
}
#endif

namespace {

Table filled(void (*fill)(Table&)) {
  Table table{};
  fill(table);
  return table;
}

Isa best() {
  Isa limit = Isa::avx512;
  if (const char* name = std::getenv("STAIRGRAD_MAX_ISA")) {
    const std::string_view wanted = name;
    check(wanted == "baseline" || wanted == "avx2" || wanted == "avx512",
          "[simd] got STAIRGRAD_MAX_ISA=", wanted, ", expected baseline, avx2 or avx512");
    limit = wanted == "baseline" ? Isa::baseline : wanted == "avx2" ? Isa::avx2 : Isa::avx512;
  }
  for (const Isa isa : {Isa::avx512, Isa::avx2})
    if (isa <= limit && table_of(isa)) return isa;
  return Isa::baseline;
}

struct Current {
  Isa isa = best();
  const Table* table = table_of(isa);
};
Current& current() {
  static Current instance;
  return instance;
}

}  // namespace

const Table* table_of(Isa isa) {
  static const Table plain = filled(baseline::fill);
  if (isa == Isa::baseline) return &plain;
#ifdef STAIRGRAD_X86
  if (isa == Isa::avx2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    static const Table table = filled(avx2::fill);
    return &table;
  }
  if (isa == Isa::avx512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    static const Table table = filled(avx512::fill);
    return &table;
  }
#endif
  return nullptr;
}

const Table& table() { return *current().table; }

Isa isa() { return current().isa; }

void use_isa(Isa isa) {
  const Table* table = table_of(isa);
  check(table != nullptr, "[simd] got the instruction set ", name_of(isa),
        ", which this build or CPU does not have");
  current().isa = isa;
  current().table = table;
}

}  // namespace stairgrad::simd
