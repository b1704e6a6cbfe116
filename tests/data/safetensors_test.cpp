// Safetensors: round trips, and each check of the format.
#include "data/formats/safetensors.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "data/formats/half.h"
#include "support.h"

using namespace stairgrad;
using namespace stairgrad::data;

namespace {

/// A file with this header and `data_size` bytes of data.
Bytes made(const std::string& header, size_t data_size) {
  Bytes bytes(8);
  const uint64_t length = header.size();
  std::memcpy(bytes.data(), &length, 8);
  return bytes + bytes_of(header) + Bytes(data_size, 0);
}

std::string tensors_refusal(const Bytes& bytes, Layout layout = Layout::ohwi) {
  return refusal([&] { parse_safetensors(bytes, "f", layout); });
}

/// The JSON object with these members; `members` alternates names and values.
std::string object(const std::vector<std::string>& members) {
  std::string json = "{";
  for (size_t i = 0; i < members.size(); i += 2) {
    if (i) json += ",";
    json.append("\"").append(members[i]).append("\":").append(members[i + 1]);
  }
  return json + "}";
}

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

SafeTensors sample() {
  return {{{"w", Array::of<float>({1, 2, 3, 4, 5, 6}, {2, 1, 1, 3})},
           {"b", Array::of<double>({0.1, -1e300}, {2})},
           {"q", Array::of<int8_t>({-128, 127, 3}, {3})},
           {"u", Array::of<uint8_t>({255}, {1})},
           {"n", Array::of<int32_t>({-2147483647}, Shape{})},
           {"h", cast(Array::of<float>({1.5f, -2}, {2}), DType::bf16)},
           {"none", Array({0, 3})},
           {"a/../b\"\n", Array::scalar(7)}},
          {{"version", "1"}, {"about", "Gr\xc3\xbc\xc3\x9f"}}};
}

}  // namespace

TEST_CASE("safetensors: a round trip keeps names, shapes, types, bytes and metadata") {
  const TemporaryFolder folder;
  const SafeTensors content = sample();
  save_safetensors(folder / "m.safetensors", content);
  const SafeTensors back = load_safetensors(folder / "m.safetensors");
  REQUIRE(back.tensors.size() == content.tensors.size());
  for (const auto& [name, values] : content.tensors) {
    const Array& other = back.tensors.at(name);
    CHECK(other.shape() == values.shape());
    CHECK(other.dtype() == values.dtype());
    CHECK(other.to_vector() == values.to_vector());
  }
  CHECK(back.metadata.at("about") == content.metadata.at("about"));
  CHECK(back.metadata.at("layout") == "ohwi");
  CHECK(encode_safetensors(back) == encode_safetensors(content));
  CHECK(parse_safetensors(encode_safetensors({}), "f").tensors.empty());
}

TEST_CASE("safetensors: a 4-D tensor needs the word of the file, or an importer, for its layout") {
  SafeTensors content = sample();
  content.metadata["layout"] = "oihw";
  const Bytes bytes = encode_safetensors(content);
  CHECK(contains(tensors_refusal(bytes),
                 "\"w\": it has the shape (2,1,1,3), but the metadata does not say layout: ohwi"));
  CHECK(tensors_refusal(bytes, Layout::any).empty());
  CHECK(contains(tensors_refusal(made(object({"t", entry("U8", "[1,1,1,1]", "[0,1]")}), 1)), "layout: ohwi"));
}

TEST_CASE("safetensors: F16 is read as f32, I64 as s32 when it fits") {
  Bytes bytes = made(object({"h", entry("F16", "[2]", "[0,4]")}), 0);
  SafeTensors read = parse_safetensors(bytes + Bytes{0x00, 0x3c, 0x01, 0x80}, "f");
  CHECK(read.tensors.at("h").to_vector() == std::vector<double>{1, -std::ldexp(1.0, -24)});
  bytes = made(object({"n", entry("I64", "[1]", "[0,8]")}), 0);
  read = parse_safetensors(bytes + Bytes{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "f");
  CHECK(read.tensors.at("n").dtype() == DType::s32);
  CHECK(read.tensors.at("n").item() == -2);
  CHECK(
      contains(tensors_refusal(bytes + Bytes{0, 0, 0, 0x80, 0, 0, 0, 0}), "\"n\": the I64 value 2147483648"));
}

TEST_CASE("half precision: exact values") {
  CHECK(half_to_float(0x3c00) == 1);
  CHECK(half_to_float(0x7bff) == 65504);
  CHECK(half_to_float(0x0400) == std::ldexp(1.0f, -14));
  CHECK(half_to_float(0x03ff) == 1023 * std::ldexp(1.0f, -24));
  CHECK(std::signbit(half_to_float(0x8000)));
  CHECK(half_to_float(0xfc00) == -std::numeric_limits<float>::infinity());
  CHECK(std::isnan(half_to_float(0x7e00)));
}

TEST_CASE("safetensors: NaN is allowed in a file; check_finite counts and names it") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const SafeTensors content{
      {{"x", Array::of<float>({nan, 1, INFINITY}, {3})}, {"n", Array::of<int32_t>({1}, {1})}}, {}};
  const SafeTensors back = parse_safetensors(encode_safetensors(content), "f");
  const auto complaint = [](const SafeTensors& file) {
    return refusal([&] { check_finite(file.tensors, "f"); });
  };
  CHECK(contains(complaint(back), "2 of its values are NaN or infinite, the first in x"));
  CHECK(contains(complaint({{{"a", Array::zeros({2})}, {"b", cast(back.tensors.at("x"), DType::bf16)}}, {}}),
                 "2 of its values are NaN or infinite, the first in b"));
  CHECK(complaint({{{"a", Array::zeros({2})}, {"n", back.tensors.at("n")}}, {}}).empty());
}

TEST_CASE("safetensors: every break of the format is refused by name") {
  const auto one = [](const std::string& e, size_t data) { return made(object({"t", e}), data); };
  CHECK(contains(tensors_refusal({}), "empty"));
  CHECK(contains(tensors_refusal(Bytes(8, 0)), "header of 0 bytes"));
  CHECK(contains(tensors_refusal(Bytes(8, 0xff)), "expected 1 to 0"));
  CHECK(contains(tensors_refusal(made(" {}", 0)), "does not begin with '{'"));
  CHECK(contains(tensors_refusal(made("{\"\xff\":1}", 0)), "UTF-8"));
  CHECK(contains(
      tensors_refusal(made(object({"t", entry("U8", "[1]", "[0,1]"), "t", entry("U8", "[1]", "[1,2]")}), 2)),
      "occurs twice"));
  CHECK(contains(tensors_refusal(one(entry("U9", "[1]", "[0,1]"), 1)), "\"t\": got the dtype \"U9\""));
  CHECK(contains(tensors_refusal(one(entry("F32", "[4294967296,4294967296]", "[0,0]"), 0)), "overflows"));
  CHECK(contains(tensors_refusal(one(entry("F32", "[4611686018427387905]", "[0,4]"), 4)), "overflows"));
  CHECK(contains(tensors_refusal(one(entry("U8", "[-1]", "[0,1]"), 1)), "an extent is -1"));
  CHECK(contains(tensors_refusal(one(entry("U8", "[1.0]", "[0,1]"), 1)), "an extent is 1.0"));
  CHECK(contains(tensors_refusal(one(entry("U8", "[9223372036854775808]", "[0,1]"), 1)),
                 "an extent is 9223372036854775808"));
  CHECK(contains(tensors_refusal(one(entry("U8", "[1,1,1,1,1,1,1]", "[0,1]"), 1)), "more than 6 extents"));
  CHECK(contains(tensors_refusal(one(entry("U8", "[1]", "[1,0]"), 1)), "reversed"));
  CHECK(contains(tensors_refusal(one(entry("U8", "[2]", "[0,2]"), 1)), "behind the data"));
  CHECK(contains(tensors_refusal(one(entry("U8", "[2]", "[0,1]"), 1)), "needs 2 bytes, its offsets give 1"));
  CHECK(contains(tensors_refusal(one(entry("U8", "[1]", "[-1,0]"), 1)), "an offset is -1"));
  CHECK(contains(tensors_refusal(one(entry("U8", "[1]", "[0]"), 1)), "got 1 data_offsets"));
  CHECK(contains(tensors_refusal(one(entry("U8", "[1]", "[0,1]"), 2)), "1 bytes follow the last tensor"));
  CHECK(contains(tensors_refusal(one(entry("U8", "[1]", "[1,2]"), 2)), "gap of 1 bytes"));
  CHECK(contains(
      tensors_refusal(made(object({"a", entry("U8", "[2]", "[0,2]"), "b", entry("U8", "[2]", "[1,3]")}), 3)),
      "\"b\": it overlaps"));
  CHECK(contains(
      tensors_refusal(made(object({"a", entry("U8", "[2]", "[0,2]"), "b", entry("U8", "[2]", "[0,2]")}), 2)),
      "overlaps"));
  CHECK(contains(tensors_refusal(one("5", 0)), "not an object"));
  CHECK(contains(tensors_refusal(one(R"({"shape":[],"data_offsets":[0,1]})", 1)), "no dtype"));
  CHECK(contains(tensors_refusal(one(R"({"dtype":"U8","data_offsets":[0,1]})", 1)), "no list \"shape\""));
  CHECK(contains(tensors_refusal(one(R"({"dtype":"U8","shape":[],"data_offsets":[0,1],"x":1})", 1)),
                 "unknown key \"x\""));
  CHECK(contains(tensors_refusal(made(R"({"__metadata__":{"a":1}})", 0)), "\"a\" is not a string"));
  CHECK(contains(tensors_refusal(made(R"({"__metadata__":[]})", 0)), "not an object"));
  CHECK(contains(tensors_refusal(made("{\"t\":" + std::string(70, '[') + std::string(70, ']') + "}", 0)),
                 "deeper"));
  CHECK(contains(tensors_refusal(made("{} x", 0)), "line 1:"));

  // Empty tensors may share an offset; two scalars may not.
  CHECK(
      tensors_refusal(made(object({"a", entry("F32", "[0]", "[0,0]"), "b", entry("F32", "[0]", "[0,0]")}), 0))
          .empty());
}

TEST_CASE("safetensors: errors give the place in the file") {
  CHECK(contains(tensors_refusal(made("{x}", 0)), "f (byte 10): line 1:2"));
  const std::string good = entry("U8", "[1]", "[0,1]"), bad = entry("U9", "[1]", "[1,2]");
  const Bytes bytes = made(R"({"__metadata__":{"b":"\"b\":{"}, "a":)" + good + R"(, "b" : )" + bad + "}", 2);
  const std::string content(bytes.begin(), bytes.end());
  CHECK(contains(tensors_refusal(bytes), text("f (byte ", content.find("\"b\" :"), "): tensor \"b\"")));
}

TEST_CASE("safetensors: 100,000 tensors") {
  SafeTensors content;
  for (int i = 0; i < 100000; ++i)
    content.tensors["t" + std::to_string(i)] = Array::of<uint8_t>({1}, Shape{});
  CHECK(parse_safetensors(encode_safetensors(content), "f").tensors.size() == 100000);
}

TEST_CASE("safetensors: truncation at every byte is refused") {
  CHECK(first_accepted_truncation(encode_safetensors(sample()),
                                  [](const Bytes& b) { parse_safetensors(b, "f"); }) == -1);
}
