#include "simd.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace stairgrad::simd {

// Of table.cpp, codes.cpp and integer_conv.cpp, one for each instruction set.
namespace baseline {
void fill(Table&);
void enter_codes(IntegerTable&);
void enter_integer_conv(IntegerTable&);
}  // namespace baseline
#ifdef STAIRGRAD_X86
namespace avx2 {
void fill(Table&);
void enter_codes(IntegerTable&);
void enter_integer_conv(IntegerTable&);
}  // namespace avx2
namespace avx512 {
void fill(Table&);
void enter_codes(IntegerTable&);
void enter_integer_conv(IntegerTable&);
}  // namespace avx512
namespace avx512_vnni {
void enter_codes(IntegerTable&);
void enter_integer_conv(IntegerTable&);
}  // namespace avx512_vnni
#endif

namespace {

template <class Table, class... Enter>
Table filled(Enter... enter) {
  Table table{};
  (enter(table), ...);
  return table;
}

bool has(Isa isa) {
  if (isa == Isa::baseline) return true;
#ifdef STAIRGRAD_X86
  if (isa == Isa::avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (isa == Isa::avx512) return avx512;
  return avx512 && __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

constexpr Isa all_isas[] = {Isa::avx512_vnni, Isa::avx512, Isa::avx2, Isa::baseline};

Isa best() {
  Isa limit = all_isas[0];
  if (const char* wanted = std::getenv("STAIRGRAD_MAX_ISA")) {
    const auto named = [&](Isa isa) { return std::string_view(name_of(isa)) == wanted; };
    const auto found = std::find_if(std::begin(all_isas), std::end(all_isas), named);
    check(found != std::end(all_isas), "[simd] got STAIRGRAD_MAX_ISA=", wanted,
          ", expected baseline, avx2, avx512 or avx512_vnni");
    limit = *found;
  }
  return *std::find_if(std::begin(all_isas), std::end(all_isas),
                       [&](Isa isa) { return isa <= limit && has(isa); });
}

struct Current {
  Isa isa = best();
  const Table* table = table_of(isa);
  const IntegerTable* integers = integer_table_of(isa);
};
Current& current() {
  static Current instance;
  return instance;
}

}  // namespace

const Table* table_of(Isa isa) {
  static const Table plain = filled<Table>(baseline::fill);
  if (!has(isa)) return nullptr;
#ifdef STAIRGRAD_X86
  if (isa == Isa::avx2) {
    static const Table table = filled<Table>(avx2::fill);
    return &table;
  }
  if (isa >= Isa::avx512) {
    static const Table table = filled<Table>(avx512::fill);
    return &table;
  }
#endif
  return &plain;
}

const IntegerTable* integer_table_of(Isa isa) {
  static const IntegerTable plain = filled<IntegerTable>(baseline::enter_codes, baseline::enter_integer_conv);
  if (!has(isa)) return nullptr;
#ifdef STAIRGRAD_X86
  if (isa == Isa::avx2) {
    static const IntegerTable table = filled<IntegerTable>(avx2::enter_codes, avx2::enter_integer_conv);
    return &table;
  }
  if (isa == Isa::avx512) {
    static const IntegerTable table = filled<IntegerTable>(avx512::enter_codes, avx512::enter_integer_conv);
    return &table;
  }
  if (isa == Isa::avx512_vnni) {
    static const IntegerTable table =
        filled<IntegerTable>(avx512_vnni::enter_codes, avx512_vnni::enter_integer_conv);
    return &table;
  }
#endif
  return &plain;
}

const Table& table() { return *current().table; }
const IntegerTable& integer_table() { return *current().integers; }

Isa isa() { return current().isa; }

void use_isa(Isa isa) {
  check(has(isa), "[simd] got the instruction set ", name_of(isa), ", which this build or CPU does not have");
  current() = {isa, table_of(isa), integer_table_of(isa)};
}

}  // namespace stairgrad::simd
