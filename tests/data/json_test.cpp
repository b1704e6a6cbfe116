// JSON is parsed strictly and errors name line and column.
#include "data/formats/json.h"

#include <doctest/doctest.h>

#include "support.h"

using namespace stairgrad;
using namespace stairgrad::data;

namespace {

std::string json_refusal(std::string_view content) {
  return refusal([&] { parse_json(bytes_of(content), "f"); });
}

std::string nested(size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

}  // namespace

TEST_CASE("JSON: values arrive as nlohmann's own parser gives them") {
  for (const char* content :
       {R"({"a": [1, -2, 3.5, true, null, "x\u00e4"], "b": {"c": {}, "d": []}, "e": 18446744073709551615})",
        "7", "\"s\"", "[]", " {} ", "[[[]], {\"k\": [{}]}]", "1e300"})
    CHECK(parse_json(bytes_of(content), "f") == Json::parse(content));
}

TEST_CASE("JSON: what is refused, and where") {
  CHECK(contains(json_refusal("{\"a\": 1,\n \"a\": 2}"), "line 2:"));
  CHECK(contains(json_refusal("{\"a\": 1,\n \"a\": 2}"), "\"a\" occurs twice"));
  CHECK(contains(json_refusal("{\"a\": {\"b\": 1, \"b\": 1}}"), "occurs twice"));
  CHECK(contains(json_refusal(nested(65)), "deeper than 64"));
  CHECK(json_refusal(nested(64)).empty());
  CHECK(contains(json_refusal(std::string(1000000, '[')), "deeper than 64"));
  CHECK(contains(json_refusal("[18446744073709551616]"), "does not fit"));
  CHECK(contains(json_refusal("[\n1e999]"), "line 2:"));
  CHECK(contains(json_refusal("\xef\xbb\xbf{}"), "byte-order mark"));
  for (const char* content :
       {"", " ", "{", "[1,]", "{\"a\":1,}", "[NaN]", "[Infinity]", "[1] x", "// c\n1", "{a:1}", "{'a':1}",
        "[01]", "\"\\ud800\"", "\"\xff\"", "\"\x01\"", "nul", "[1 2]", "{\"a\" 1}"})
    CHECK(contains(json_refusal(content), "line 1:"));
  CHECK(contains(refusal([&] { parse_json(bytes_of("[1, 2]"), "f", 5); }), "limit"));
}

TEST_CASE("JSON: truncation at every byte is refused") {
  const Bytes whole = bytes_of(R"({"a": [1, -2.5e3, true, null, "x\u00e4"], "b": {"c": {}}})");
  CHECK(first_accepted_truncation(whole, [](const Bytes& b) { parse_json(b, "f"); }) == -1);
}
