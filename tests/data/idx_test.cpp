// IDX files and gzip: contents, and every way to damage them.
#include "data/formats/idx.h"

#include <doctest/doctest.h>
#include <zlib.h>

#include "data/formats/gzip.h"
#include "support.h"

using namespace stairgrad;
using namespace stairgrad::data;

namespace {

Bytes idx(std::initializer_list<uint32_t> extents, size_t elements, uint8_t type = 8) {
  Bytes bytes = {0, 0, type, static_cast<uint8_t>(extents.size())};
  for (const uint32_t e : extents)
    for (const int shift : {24, 16, 8, 0}) bytes.push_back(static_cast<uint8_t>(e >> shift));
  for (size_t i = 0; i < elements; ++i) bytes.push_back(static_cast<uint8_t>(3 * i + 1));
  return bytes;
}

Bytes gzip(ByteView content) {
  z_stream stream{};
  REQUIRE(deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  Bytes packed(deflateBound(&stream, static_cast<uLong>(content.size())));
  stream.next_in = const_cast<Bytef*>(content.data());
  stream.avail_in = static_cast<uInt>(content.size());
  stream.next_out = packed.data();
  stream.avail_out = static_cast<uInt>(packed.size());
  REQUIRE(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

std::string idx_refusal(const Bytes& bytes) {
  return refusal([&] { parse_idx(bytes, "f"); });
}

}  // namespace

TEST_CASE("IDX: one, two and three extents, plain and packed") {
  const Array cube = parse_idx(idx({2, 3, 4}, 24), "f");
  CHECK(cube.shape() == Shape{2, 3, 4});
  CHECK(cube.dtype() == DType::u8);
  CHECK(cube.data<uint8_t>()[23] == 70);
  CHECK(parse_idx(idx({5}, 5), "f").shape() == Shape{5});
  CHECK(parse_idx(idx({2, 2}, 4), "f").shape() == Shape{2, 2});
  CHECK(parse_idx(gzip(idx({2, 3, 4}, 24)), "f").to_vector() == cube.to_vector());

  const TemporaryFolder folder;
  CHECK(read_idx(folder.file("images.gz", gzip(idx({2, 3, 4}, 24)))).to_vector() == cube.to_vector());
}

TEST_CASE("IDX: wrong magic, type, extents, sizes") {
  CHECK(contains(idx_refusal(bytes_of("version https://git-lfs.github.com/spec/v1")), "git lfs pull"));
  CHECK(contains(idx_refusal(bytes_of("<!doctype html><html>404</html>")), "HTML page"));
  CHECK(contains(idx_refusal({}), "empty"));
  CHECK(contains(idx_refusal({0}), "at least 4 bytes"));
  CHECK(contains(idx_refusal(Bytes(64, 0)), "type code 0"));
  CHECK(contains(idx_refusal(idx({2, 2}, 4, 0x0d)), "type code 13"));
  CHECK(contains(idx_refusal(idx({}, 4)), "got 0 extents"));
  CHECK(contains(idx_refusal(idx({1, 1, 1, 1}, 1)), "got 4 extents"));
  CHECK(contains(idx_refusal(idx({2, 0, 3}, 0)), "extent 1 is zero"));
  CHECK(contains(idx_refusal(idx({2, 2}, 3)), "declare 4 bytes, but 3 follow; the file is cut short"));
  CHECK(contains(idx_refusal(idx({2, 2}, 5)), "bytes behind the end"));
  CHECK(contains(idx_refusal(idx({0xffffffffu, 0xffffffffu, 0xffffffffu}, 5)), "more than 64 bits"));
  CHECK(contains(idx_refusal(idx({0xffffffffu, 0xffffffffu}, 5)), "but 5 follow"));
  CHECK(contains(idx_refusal({8, 0, 0, 0, 1, 0, 0, 0, 9}), "two zero bytes"));  // the little-endian twin
}

TEST_CASE("IDX and gzip: truncation at every byte is refused") {
  const auto parse = [](const Bytes& part) { parse_idx(part, "f"); };
  CHECK(first_accepted_truncation(idx({2, 3, 4}, 24), parse) == -1);
  CHECK(first_accepted_truncation(gzip(idx({2, 3, 4}, 24)), parse) == -1);
}

TEST_CASE("gzip: damage at every bit gives the same content or a format_error, never other content") {
  const Bytes content = idx({4, 3, 4}, 48), whole = gzip(content);
  int refused = 0;
  for (size_t i = 0; i < 8 * whole.size(); ++i) {
    Bytes damaged = whole;
    damaged[i / 8] ^= static_cast<uint8_t>(1 << i % 8);
    Bytes unpacked;
    const std::string message = refusal([&] { unpacked = gunzip(damaged, "f"); });
    refused += !message.empty();
    CHECK((!message.empty() || unpacked == content));
  }
  CHECK(refused > static_cast<int>(4 * whole.size()));
}

TEST_CASE("gzip: several members, trailing bytes, and a bomb") {
  const Bytes a = bytes_of("first "), b = bytes_of("second");
  CHECK(gunzip(gzip(a) + gzip(b), "f") == a + b);
  CHECK(gunzip(gzip({}), "f").empty());
  CHECK(contains(refusal([&] { gunzip(gzip(a) + bytes_of("junk"), "f"); }), "behind the end"));
  CHECK(contains(refusal([&] { gunzip(a, "f"); }), "not a gzip file"));
  const Bytes bomb = gzip(Bytes(1 << 20, 0));
  CHECK(gunzip(bomb, "f", 1 << 20).size() == 1 << 20);
  CHECK(contains(refusal([&] { gunzip(bomb, "f", (1 << 20) - 1); }), "more than the limit"));
}

TEST_CASE("IDX, packed: the offset of an error is said to be in the unpacked bytes") {
  CHECK(
      contains(idx_refusal(gzip(idx({1000}, 999))), "f (byte 0): byte 8 of what it unpacks to: the extents"));
}
