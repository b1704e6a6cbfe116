// The entry points of libFuzzer: one program a parser, whose name is what PARSER says. A parser returns or
// throws format_error; anything else ends the program.
#include <algorithm>
#include <string_view>

#include "parsers.h"
#include "repair.h"

using namespace stairgrad;
using namespace stairgrad::data;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  static const Parser& parser = *std::ranges::find(parsers(), PARSER, &Parser::name);
  try {
    parser.parse({bytes, bytes + size});
  } catch (const format_error&) {
  }
  return 0;
}

extern "C" size_t LLVMFuzzerMutate(uint8_t* bytes, size_t size, size_t most);

// Most changes are followed by right checksums, so that what lies behind them is tried as well.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* bytes, size_t size, size_t most, unsigned seed) {
  const size_t changed = LLVMFuzzerMutate(bytes, size, most);
  if (seed % 8 == 0) return changed;
  if (std::string_view(PARSER) == "image") repair_png(bytes, changed);
  if (std::string_view(PARSER) == "pth") repair_zip(bytes, changed);
  return changed;
}
