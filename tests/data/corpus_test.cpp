// What fuzzers found, and hostile files kept as files: replayed through the parsers.
#include <doctest/doctest.h>

#include "../fuzz/parsers.h"
#include "support.h"

using namespace stairgrad;
using namespace stairgrad::data;
namespace fs = std::filesystem;

TEST_CASE("the corpus of each fuzzer: a value or a format_error, nothing else") {
  for (const Parser& parser : parsers()) {
    const fs::path corpus = fs::path(TEST_FILES) / "fuzz/corpus" / parser.name;
    INFO(corpus.string());
    REQUIRE(fs::is_directory(corpus));
    int files = 0;
    for (const fs::directory_entry& entry : fs::directory_iterator(corpus)) {
      refusal([&] { parser.parse(read_file(entry.path().string())); });
      ++files;
    }
    CHECK(files > 0);
  }
}

TEST_CASE("each parser refuses files of all the other formats") {
  for (const Parser& parser : parsers())
    for (const Parser& other : parsers()) {
      // gzip is unpacked on the way to IDX, and records of CIFAR may pass for anything of their size.
      if (std::string_view(other.name).substr(0, 5) == std::string_view(parser.name).substr(0, 5)) continue;
      if (std::string_view(parser.name) == "idx" && std::string_view(other.name) == "gzip") continue;
      if (std::string_view(parser.name) == "gzip" && std::string_view(other.name) == "idx") continue;
      for (const fs::directory_entry& entry :
           fs::directory_iterator(fs::path(TEST_FILES) / "fuzz/corpus" / other.name)) {
        INFO(parser.name << " reads " << entry.path().string());
        CHECK(!refusal([&] { parser.parse(read_file(entry.path().string())); }).empty());
      }
    }
}

TEST_CASE("every file in tests/bad_input is refused by the parser that its folder names") {
  int files = 0;
  for (const Parser& parser : parsers()) {
    const fs::path folder = fs::path(TEST_FILES) / "bad_input" / parser.name;
    if (!fs::is_directory(folder)) continue;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
      INFO(entry.path().string());
      const Bytes bytes = read_file(entry.path().string());
      try {
        parser.parse(bytes);
        FAIL_CHECK("it was not refused");
      } catch (const format_error& error) {
        CHECK(error.path == parser.name);
        CHECK(has(error.what(), error.path));
        CHECK(has(error.what(), error.reason));
        CHECK(error.reason.size() > 10);
        CHECK(error.offset <= bytes.size());
      }
      ++files;
    }
  }
  CHECK(files > 20);
}
