// The entry point of libFuzzer: one program a parser, whose name is what PARSER says. A parser returns or
// throws format_error; anything else ends the program.
#include <algorithm>
#include <string_view>

#include "parsers.h"

using namespace stairgrad;
using namespace stairgrad::data;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  static const Parser& parser = *std::ranges::find(parsers(), std::string_view(PARSER),
                                                   [](const Parser& p) { return std::string_view(p.name); });
  try {
    parser.parse({bytes, bytes + size});
  } catch (const format_error&) {
  }
  return 0;
}
