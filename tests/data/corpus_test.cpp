// What fuzzers found, and hostile files kept as files: replayed through the parsers.
#include <doctest/doctest.h>

#include "../fuzz/parsers.h"
#include "kernels/random.h"
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
      if (other.name.substr(0, 5) == parser.name.substr(0, 5)) continue;
      if (parser.name == "idx" && other.name == "gzip") continue;
      if (parser.name == "gzip" && other.name == "idx") continue;
      // A line of any text may be the name of a class, and one table is both.
      if (parser.name != "json" && parser.text && other.text) continue;
      for (const fs::directory_entry& entry :
           fs::directory_iterator(fs::path(TEST_FILES) / "fuzz/corpus" / other.name)) {
        INFO(parser.name << " reads " << entry.path().string());
        CHECK(!refusal([&] { parser.parse(read_file(entry.path().string())); }).empty());
      }
    }
}

TEST_CASE("files whose line ends were converted, as by a transfer in text mode, are refused") {
  const auto converted = [](const Bytes& bytes, std::string_view from, std::string_view to) {
    Bytes result;
    for (size_t at = 0; at < bytes.size();) {
      const bool match = at + from.size() <= bytes.size() &&
                         std::equal(from.begin(), from.end(), bytes.begin() + static_cast<ptrdiff_t>(at));
      if (match)
        result.insert(result.end(), to.begin(), to.end());
      else
        result.push_back(bytes[at]);
      at += match ? from.size() : 1;
    }
    return result;
  };
  for (const Parser& parser : parsers()) {
    if (parser.text) continue;
    int damaged = 0;
    for (const fs::directory_entry& entry :
         fs::directory_iterator(fs::path(TEST_FILES) / "fuzz/corpus" / parser.name)) {
      const Bytes whole = read_file(entry.path().string());
      for (const bool longer : {true, false}) {
        const Bytes bytes = longer ? converted(whole, "\n", "\r\n") : converted(whole, "\r\n", "\n");
        if (bytes == whole) continue;
        INFO(entry.path().string() << (longer ? ", longer" : ", shorter"));
        CHECK(!refusal([&] { parser.parse(bytes); }).empty());
        ++damaged;
      }
    }
    INFO(parser.name);
    CHECK(damaged > 0);
  }
}

TEST_CASE("random bytes of any length are refused by every parser") {
  const Philox rng(7);
  for (const Parser& parser : parsers())
    for (uint64_t round = 0; round < 200; ++round) {
      Bytes bytes(rng.below(2 * round, round % 4 == 0 ? 20 * 3073 : 64));
      for (size_t i = 0; i < bytes.size(); ++i)
        bytes[i] = static_cast<uint8_t>(rng.below(round << 32 | i, 256));
      INFO(parser.name << ", " << bytes.size() << " bytes, round " << round);
      CHECK(!refusal([&] { parser.parse(bytes); }).empty());
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
