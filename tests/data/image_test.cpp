// PNG and JPEG: channel rules, limits, damage.
#include "data/formats/image.h"

#include <doctest/doctest.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>

#include "kernels/random.h"
#include "support.h"

using namespace stairgrad;
using namespace stairgrad::data;

namespace {

Bytes big_endian(uint32_t value) {
  return {static_cast<uint8_t>(value >> 24), static_cast<uint8_t>(value >> 16),
          static_cast<uint8_t>(value >> 8), static_cast<uint8_t>(value)};
}

Bytes chunk(const std::string& name, ByteView content) {
  const Bytes body = bytes_of(name) + content;
  const uLong checksum = crc32(0, body.data(), static_cast<uInt>(body.size()));
  return big_endian(static_cast<uint32_t>(content.size())) + body +
         big_endian(static_cast<uint32_t>(checksum));
}

Bytes deflated(ByteView content) {
  uLongf size = compressBound(static_cast<uLong>(content.size()));
  Bytes packed(size);
  REQUIRE(compress(packed.data(), &size, content.data(), static_cast<uLong>(content.size())) == Z_OK);
  packed.resize(size);
  return packed;
}

const Bytes signature = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
enum Colour : uint8_t { grey = 0, rgb = 2, palette = 3, grey_alpha = 4, rgba = 6 };

Bytes header(uint32_t w, uint32_t h, int depth, Colour colour, uint8_t interlace = 0) {
  return chunk("IHDR",
               big_endian(w) + big_endian(h) + Bytes{static_cast<uint8_t>(depth), colour, 0, 0, interlace});
}

/// A PNG file; `rows` has a filter byte before each row.
Bytes png(uint32_t w, uint32_t h, int depth, Colour colour, const Bytes& rows, const Bytes& extra = {},
          uint8_t interlace = 0) {
  return signature + header(w, h, depth, colour, interlace) + extra + chunk("IDAT", deflated(rows)) +
         chunk("IEND", {});
}

std::vector<double> pixels(const Bytes& bytes) { return decode_image(bytes, "f").to_vector(); }
std::string image_refusal(const Bytes& bytes, const ImageLimits& limits = {}) {
  return refusal([&] { decode_image(bytes, "f", limits); });
}

Bytes sample(const std::string& name) {
  return read_file(std::string(TEST_FILES) + "/data/pictures/" + name);
}

Bytes two_by_one() { return png(2, 1, 8, rgb, {0, 1, 2, 3, 4, 5, 6}); }

}  // namespace

TEST_CASE("PNG: every colour type becomes red, green and blue by the stated rule") {
  using Values = std::vector<double>;
  CHECK(decode_image(two_by_one(), "f").shape() == Shape{1, 2, 3});
  CHECK(pixels(two_by_one()) == Values{1, 2, 3, 4, 5, 6});
  CHECK(pixels(png(2, 1, 8, grey, {0, 7, 9})) == Values{7, 7, 7, 9, 9, 9});
  CHECK(pixels(png(1, 1, 8, grey_alpha, {0, 7, 100})) == Values{7, 7, 7});
  CHECK(pixels(png(1, 1, 8, rgba, {0, 7, 8, 9, 0})) == Values{7, 8, 9});
  CHECK(pixels(png(1, 1, 16, grey, {0, 0xab, 0xff})) == Values{0xab, 0xab, 0xab});
  CHECK(pixels(png(1, 1, 16, rgb, {0, 1, 0xff, 2, 0xff, 3, 0xff})) == Values{1, 2, 3});
  CHECK(pixels(png(4, 1, 1, grey, {0, 0b10100000})) ==
        Values{255, 255, 255, 0, 0, 0, 255, 255, 255, 0, 0, 0});
  CHECK(pixels(png(2, 1, 4, grey, {0, 0x0f})) == Values{0, 0, 0, 255, 255, 255});
  const Bytes colours = chunk("PLTE", Bytes{10, 20, 30, 40, 50, 60});
  CHECK(pixels(png(2, 1, 8, palette, {0, 1, 0}, colours)) == Values{40, 50, 60, 10, 20, 30});
  CHECK(pixels(png(2, 1, 2, palette, {0, 0b01000000}, colours)) == Values{40, 50, 60, 10, 20, 30});
  // Adam7 of 2 x 2: pass 1 holds (0,0), pass 6 (0,1), pass 7 the second row.
  CHECK(pixels(png(2, 2, 8, grey, {0, 1, 0, 2, 0, 3, 4}, {}, 1)) ==
        Values{1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4});
  CHECK(pixels(png(2, 1, 8, rgb, {1, 1, 2, 3, 4, 5, 6})) == Values{1, 2, 3, 5, 7, 9});  // filter: left
  CHECK(pixels(png(1, 1, 8, grey, {0, 5}, chunk("tEXt", bytes_of("Author\0x")))) == Values{5, 5, 5});
}

TEST_CASE("PNG: palettes of every depth, and colours that they lack") {
  using Values = std::vector<double>;
  const auto colours = [](int count) {
    Bytes entries;
    for (int i = 0; i < count; ++i)
      entries = std::move(entries) + Bytes{static_cast<uint8_t>(i), static_cast<uint8_t>(i + 1), 7};
    return chunk("PLTE", entries);
  };
  CHECK(pixels(png(2, 1, 1, palette, {0, 0b01000000}, colours(2))) == Values{0, 1, 7, 1, 2, 7});
  CHECK(pixels(png(2, 1, 2, palette, {0, 0b10110000}, colours(4))) == Values{2, 3, 7, 3, 4, 7});
  CHECK(pixels(png(2, 1, 4, palette, {0, 0xf1}, colours(16))) == Values{15, 16, 7, 1, 2, 7});
  CHECK(pixels(png(2, 1, 8, palette, {0, 255, 9}, colours(256))) == Values{255, 0, 7, 9, 10, 7});
  CHECK(pixels(png(2, 1, 8, palette, {0, 1, 0}, colours(2) + chunk("tRNS", Bytes{0}))) ==
        Values{1, 2, 7, 0, 1, 7});
  CHECK(contains(image_refusal(png(2, 1, 8, palette, {0, 1, 2}, colours(2))),
                 "pixel (0,1) has colour 2 of a palette of 2"));
  CHECK(contains(image_refusal(png(2, 1, 2, palette, {0, 0b11000000}, colours(3))),
                 "pixel (0,0) has colour 3"));
  CHECK(contains(image_refusal(png(2, 1, 8, palette, {0, 1, 0}, colours(2) + colours(2))), "second palette"));
  CHECK(contains(image_refusal(png(2, 1, 8, palette, {0, 1, 0}, chunk("PLTE", Bytes(4)))), "second palette"));
}

TEST_CASE("PNG: line ends that were converted are named") {
  const Bytes rest = two_by_one();
  for (const char* start : {"\x89PNG\n\x1a\n", "\x89PNG\r\r\n\x1a\r\n", "\x89PNG\r\x1a\r"})
    CHECK(contains(image_refusal(bytes_of(start) + ByteView(rest).subspan(8)), "line ends are converted"));
}

TEST_CASE("PNG: damage and hostile headers") {
  CHECK(contains(image_refusal({}), "empty"));
  CHECK(contains(image_refusal(bytes_of("GIF89a")), "neither a PNG nor a JPEG"));
  CHECK(contains(image_refusal(bytes_of("version https://git-lfs")), "git lfs pull"));
  CHECK(contains(image_refusal(png(0, 1, 8, rgb, {0})), "cannot be read"));
  CHECK(contains(image_refusal(png(1, 0, 8, rgb, {0})), "cannot be"));
  CHECK(contains(image_refusal(png(2, 2, 8, rgb, {0, 1, 2, 3})), "cannot be decoded"));
  CHECK(contains(image_refusal(png(1, 1, 8, palette, {0, 0})), "cannot be"));
  CHECK(!image_refusal(png(1, 1, 8, grey, {9, 1})).empty());  // no such filter
  CHECK(!image_refusal(png(1, 1, 3, grey, {0, 1})).empty());  // no such depth
  CHECK(!image_refusal(png(1, 1, 8, static_cast<Colour>(5), {0, 1})).empty());
  CHECK(contains(image_refusal(two_by_one() + bytes_of("x")), "1 bytes follow"));
  CHECK(contains(image_refusal(png(20000, 1, 8, grey, {0})), "20000 x 1 pixels"));
  CHECK(contains(image_refusal(png(16384, 16384, 8, grey, {0})), "the limits are"));
  CHECK(contains(image_refusal(png(16384, 4097, 8, grey, {0})), "the limits are"));
  CHECK(contains(image_refusal(png(9, 1, 8, grey, Bytes(10, 0)), {.edge = 8}), "9 x 1"));
  CHECK(!image_refusal(signature + chunk("IDAT", Bytes{}) + chunk("IEND", {})).empty());
  CHECK(contains(image_refusal(signature + big_endian(0xffffffff) + bytes_of("IHDR")), "cut short"));
}

TEST_CASE("PNG: a small file that unpacks to far more than its header declares is stopped") {
  CHECK(contains(image_refusal(png(1, 1, 8, grey, Bytes(64 << 20, 0))), "cannot be decoded"));
}

TEST_CASE("PNG: a flipped bit anywhere behind the signature is noticed") {
  const Bytes whole = two_by_one();
  for (size_t i = 8 * 8; i < 8 * whole.size(); ++i) {
    Bytes damaged = whole;
    damaged[i / 8] ^= static_cast<uint8_t>(1 << i % 8);
    CHECK(!image_refusal(damaged).empty());
  }
}

TEST_CASE("PNG and JPEG: truncation at every byte is refused") {
  const auto decode = [](const Bytes& part) { decode_image(part, "f"); };
  CHECK(first_accepted_truncation(two_by_one(), decode) == -1);
  for (const char* name :
       {"baseline.jpg", "progressive.jpg", "cmyk.jpg", "ycck.jpg", "restart.jpg", "separate_scans.jpg"})
    CHECK(first_accepted_truncation(sample(name), decode) == -1);
}

TEST_CASE("PNG: empty chunks of pixels are allowed") {
  CHECK(pixels(png(2, 1, 8, rgb, {0, 1, 2, 3, 4, 5, 6}, chunk("IDAT", {}))) == pixels(two_by_one()));
  CHECK(contains(image_refusal(signature + header(2, 1, 8, rgb) + chunk("IDAT", {}) + chunk("IEND", {})),
                 "cannot be decoded"));
}

TEST_CASE("PNG: an animation is its still picture") {
  const auto frame = [](uint8_t number) {  // 2 x 1 pixels, shown for a second
    return chunk("fcTL",
                 Bytes{0, 0, 0, number} + big_endian(2) + big_endian(1) + Bytes(8) + Bytes{0, 1, 0, 1, 0, 0});
  };
  const Bytes second = Bytes{0, 0, 0, 2} + deflated(Bytes{0, 9, 9, 9, 9, 9, 9});
  const Bytes animated = signature + header(2, 1, 8, rgb) + chunk("acTL", big_endian(2) + big_endian(0)) +
                         frame(0) + chunk("IDAT", deflated(Bytes{0, 1, 2, 3, 4, 5, 6})) + frame(1) +
                         chunk("fdAT", second) + chunk("IEND", {});
  CHECK(pixels(animated) == std::vector<double>{1, 2, 3, 4, 5, 6});
  CHECK(first_accepted_truncation(animated, [](const Bytes& part) { decode_image(part, "f"); }) == -1);
}

TEST_CASE("JPEG and PNG: pictures are not turned, whatever EXIF says") {
  // One entry: orientation (0x112) is 6, "turn by 90 degrees".
  const Bytes exif = bytes_of("MM") + Bytes{0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0} +
                     Bytes{0, 0, 0, 0};
  CHECK(pixels(png(2, 1, 8, rgb, {0, 1, 2, 3, 4, 5, 6}, chunk("eXIf", exif))) == pixels(two_by_one()));
  const Bytes jpeg = sample("baseline.jpg"), name = {'E', 'x', 'i', 'f', 0, 0};
  const auto length = static_cast<uint8_t>(2 + name.size() + exif.size());
  const Bytes turned = (Bytes{0xff, 0xd8, 0xff, 0xe1, 0, length} + name + exif) + ByteView(jpeg).subspan(2);
  CHECK(decode_image(turned, "f").shape() == Shape{13, 19, 3});
  CHECK(pixels(turned) == pixels(jpeg));
}

TEST_CASE("JPEG: every kind decodes to what Pillow sees, or djpeg where Pillow does not say") {
  struct Sample {
    const char* name;
    int expected[3][3];  // at (0,0), (6,9), (12,18)
  };
  const Sample samples[] = {
      {"baseline.jpg", {{2, 2, 136}, {114, 115, 57}, {232, 228, 227}}},
      {"restart.jpg", {{0, 3, 143}, {115, 114, 60}, {233, 227, 227}}},
      {"subsampled.jpg", {{0, 3, 143}, {115, 114, 60}, {233, 227, 227}}},
      {"progressive.jpg", {{2, 2, 136}, {114, 115, 57}, {232, 228, 227}}},
      {"separate_scans.jpg", {{0, 3, 143}, {115, 114, 60}, {233, 227, 227}}},
      {"grey.jpg", {{17, 17, 17}, {108, 108, 108}, {229, 229, 229}}},
      {"cmyk.jpg", {{0, 0, 127}, {117, 114, 61}, {234, 227, 228}}},
      {"ycck.jpg", {{255, 210, 255}, {232, 85, 163}, {0, 126, 0}}},
  };
  for (const Sample& s : samples) {
    INFO(s.name);
    const Array image = decode_image(sample(s.name), s.name);
    REQUIRE(image.shape() == Shape{13, 19, 3});
    for (int i = 0; i < 3; ++i)
      for (int c = 0; c < 3; ++c)
        CHECK(image.data<uint8_t>()[(6 * i * 19 + 9 * i) * 3 + c] ==
              doctest::Approx(s.expected[i][c]).epsilon(0.01).scale(300));
  }
}

TEST_CASE("JPEG: kinds that are not supported and headers that lie") {
  CHECK(contains(refusal([] { read_image(std::string(TEST_FILES) + "/bad_input/image/arithmetic.jpg"); }),
                 "cannot be read"));
  Bytes jpeg = sample("baseline.jpg");
  const Bytes start_of_frame = {0xff, 0xc0};
  const auto frame = static_cast<size_t>(
      std::search(jpeg.begin(), jpeg.end(), start_of_frame.begin(), start_of_frame.end()) - jpeg.begin());
  const auto patched = [&](size_t offset, std::initializer_list<uint8_t> bytes) {
    Bytes copy = jpeg;
    std::copy(bytes.begin(), bytes.end(), copy.begin() + static_cast<ptrdiff_t>(frame + offset));
    return copy;
  };
  CHECK(contains(image_refusal(patched(4, {12})), "cannot be read"));                     // 12 bits
  CHECK(contains(image_refusal(patched(5, {0xff, 0xff, 0xff, 0xff})), "65535 x 65535"));  // height and width
  CHECK(!image_refusal(patched(5, {0, 0})).empty());
  CHECK(!image_refusal(patched(9, {5})).empty());  // components
  CHECK(!image_refusal(patched(2, {0, 1})).empty());
  CHECK(contains(image_refusal({0xff, 0xd8, 0xff, 0xd9}), "cannot be read"));
  CHECK(contains(image_refusal({0xff, 0xd8, 0x00}), "expected a JPEG marker"));
  // What follows the end marker (a camera's preview, say) is not looked at.
  CHECK(image_refusal(jpeg + bytes_of("preview")).empty());
}

TEST_CASE("JPEG: coded data cut short and closed with an end marker are refused, in every scan") {
  const auto next = [](const Bytes& bytes, size_t at, bool (*wanted)(uint8_t)) {
    while (bytes[at] != 0xff || !wanted(bytes[at + 1])) ++at;
    return at;
  };
  constexpr size_t unseen = 22;  // up to so many bytes may be missing: zero bits may mean many pixels each
  for (const std::string name : {"baseline.jpg", "restart.jpg", "subsampled.jpg", "progressive.jpg",
                                 "grey.jpg", "separate_scans.jpg"}) {
    INFO(name);
    const Bytes whole = sample(name);
    CHECK(image_refusal(whole).empty());
    int cuts = 0;
    for (size_t at = 0, end = 0; end + 2 < whole.size();) {
      at = next(whole, end, [](uint8_t marker) { return marker == 0xda; });
      at += 2 + (size_t{whole[at + 2]} << 8 | whole[at + 3]);
      end = next(whole, at, [](uint8_t m) { return m != 0 && m != 0xff && (m < 0xd0 || m > 0xd7); });
      for (; at + unseen < end; ++at) {
        INFO("cut at " << at << ", the scan ends at " << end);
        Bytes cut(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(at));
        if (cut.back() == 0xff) cut.pop_back();
        CHECK(!image_refusal(cut + Bytes{0xff, 0xd9}).empty());
        ++cuts;
      }
    }
    CHECK(cuts > 5);
  }
}

TEST_CASE("JPEG: a restart marker in the wrong place is refused") {
  const Bytes whole = sample("restart.jpg"), marker = {0xff, 0xd0}, end = {0xff, 0xd9};
  const auto at = std::search(whole.begin(), whole.end(), marker.begin(), marker.end());
  const Bytes moved = (Bytes(whole.begin(), at) + Bytes(at + 2, whole.end() - 2)) + marker + end;
  CHECK(contains(image_refusal(moved), "cannot be decoded"));
}

TEST_CASE("JPEG: no single damaged byte crashes the decoder") {
  const Bytes whole = sample("progressive.jpg");
  int refused = 0;
  for (size_t i = 2; i < whole.size(); ++i)
    for (const uint8_t value : {0x00, 0xff, 0x01, 0x7f}) {
      Bytes damaged = whole;
      damaged[i] = value;
      refused += !image_refusal(damaged, {.pixels = 1 << 20}).empty();
    }
  CHECK(refused > 100);
}

TEST_CASE("write_png: a round trip in every channel count, and arguments") {
  const TemporaryFolder folder;
  for (const int64_t c : {1, 3, 4}) {
    Array image({5, 7, c}, DType::u8);
    for (int64_t i = 0; i < image.size(); ++i)
      image.data<uint8_t>()[i] = static_cast<uint8_t>(Philox(2).below(static_cast<uint64_t>(i), 256));
    write_png(folder / "p.png", image);
    const Array back = read_image(folder / "p.png");
    REQUIRE(back.shape() == Shape{5, 7, 3});
    for (int64_t i = 0; i < 35; ++i)
      for (int64_t k = 0; k < 3; ++k)
        CHECK(back.data<uint8_t>()[3 * i + k] == image.data<uint8_t>()[c * i + (c == 1 ? 0 : k)]);
  }
  CHECK_THROWS_AS(encode_png(Array({2, 2, 2}, DType::u8)), argument_error);
  CHECK_THROWS_AS(encode_png(Array({2, 2, 3})), argument_error);
  CHECK_THROWS_AS(encode_png(Array({0, 2, 3}, DType::u8)), argument_error);
  CHECK_THROWS_AS(write_png(folder / "absent/p.png", Array::zeros({1, 1, 1}, DType::u8)), unavailable_error);
}

TEST_CASE("base64: the vectors of RFC 4648") {
  const char* vectors[][2] = {{"", ""},
                              {"f", "Zg=="},
                              {"fo", "Zm8="},
                              {"foo", "Zm9v"},
                              {"foob", "Zm9vYg=="},
                              {"fooba", "Zm9vYmE="},
                              {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, coded] : vectors) CHECK(base64(bytes_of(plain)) == coded);
  CHECK(base64(Bytes{0xfb, 0xff}) == "+/8=");
}
