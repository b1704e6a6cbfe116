#include "jpeg.h"

#include <algorithm>

namespace stairgrad::data {
namespace {

/// What the segments have said so far. stb trusts that a scan finds its tables, and that they fit.
class JpegHeaders {
 public:
  void read_segment(int marker, ByteView segment, const Reader& at) {
    constexpr int huffman = 0xc4, quantisation = 0xdb, scan = 0xda, progressive = 0xc2, restarts = 0xdd;
    if (marker == huffman) read_huffman(segment, at);
    if (marker == quantisation) read_quantisation(segment, at);
    if (marker == scan) check_scan(segment, at);
    if (marker == restarts && segment.size() == 2) interval_ = big(segment);
    if (marker >= 0xc0 && marker <= progressive) {
      progressive_ = marker == progressive;
      components_.clear();
      if (segment.size() < 6) at.fail("got a frame header that is damaged");
      height_ = big(segment.subspan(1));
      width_ = big(segment.subspan(3));
      for (size_t i = 8; i < segment.size(); i += 3)
        components_.push_back({segment[i - 2], segment[i - 1] >> 4, segment[i - 1] & 15, segment[i]});
    }
  }

  /// How many restart markers the scan has at least: one between two intervals of its units, which are blocks
  /// in a scan of one component and groups of blocks (MCUs) in others (ITU T.81, A.2).
  uint64_t restarts(ByteView scan) const {
    if (interval_ == 0) return 0;
    int h = 1, v = 1;
    for (const Component& c : components_) h = std::max(h, c.h), v = std::max(v, c.v);
    uint64_t units = blocks(width_, 1, h) * blocks(height_, 1, v);
    const auto alone = std::ranges::find(components_, scan[1], &Component::id);
    if (scan[0] == 1 && alone != components_.end())
      units = blocks(width_, alone->h, h) * blocks(height_, alone->v, v);
    return units == 0 ? 0 : (units - 1) / interval_;
  }

 private:
  struct Component {
    int id, h, v, quantisation;
  };

  static uint64_t big(ByteView bytes) { return uint64_t{bytes[0]} << 8 | bytes[1]; }

  /// Blocks of 8 along an edge of a component that has `sampling` of `most` of the picture's pixels.
  static uint64_t blocks(uint64_t edge, int sampling, int most) {
    const auto part = static_cast<uint64_t>(sampling), whole = static_cast<uint64_t>(most);
    return (edge * part + 8 * whole - 1) / (8 * whole);
  }
  void read_huffman(ByteView segment, const Reader& at) {
    while (!segment.empty()) {
      if (segment.size() < 17) at.fail("got a Huffman table that is damaged");
      const int id = segment[0];
      size_t codes = 0;
      for (size_t length = 1; length <= 16; ++length) codes += segment[length];
      if (id >> 4 > 1 || (id & 15) > 3 || codes > 256 || segment.size() < 17 + codes)
        at.fail("got a Huffman table of ", codes, " codes in ", segment.size(),
                " bytes: the file is damaged");
      huffman_[id >> 4][id & 15] = true;
      segment = segment.subspan(17 + codes);
    }
  }

  void read_quantisation(ByteView segment, const Reader& at) {
    while (!segment.empty()) {
      const size_t size = segment[0] >> 4 ? 129 : 65;
      if ((segment[0] & 15) > 3 || segment.size() < size) at.fail("got a quantisation table that is damaged");
      quantisation_[segment[0] & 15] = true;
      segment = segment.subspan(size);
    }
  }

  void check_scan(ByteView segment, const Reader& at) const {
    const size_t components = segment.empty() ? 0 : segment[0];
    if (segment.size() != 4 + 2 * components) at.fail("got a scan header that is damaged");
    const bool dc = segment[1 + 2 * components] == 0, refines = segment[3 + 2 * components] >> 4;
    for (size_t i = 0; i < components; ++i) {
      const int ids = segment[2 + 2 * i];
      const bool needs_dc = progressive_ ? dc && !refines : true, needs_ac = progressive_ ? !dc : true;
      if (ids >> 4 > 3 || (ids & 15) > 3 || (needs_dc && !huffman_[0][ids >> 4]) ||
          (needs_ac && !huffman_[1][ids & 15]))
        at.fail("a scan uses a Huffman table that was not defined: the file is damaged");
    }
    for (const Component& c : components_)
      if (c.quantisation > 3 || !quantisation_[c.quantisation])
        at.fail("the picture uses a quantisation table that was not defined: the file is damaged");
  }

  bool huffman_[2][4] = {};  // for DC, for AC
  bool quantisation_[4] = {};
  bool progressive_ = false;
  uint64_t width_ = 0, height_ = 0, interval_ = 0;  // pixels, pixels, units from restart to restart
  std::vector<Component> components_;
};

}  // namespace

std::vector<uint64_t> check_jpeg(ByteView bytes, const std::string& path) {
  constexpr int end_of_image = 0xd9, start_of_scan = 0xda, first_restart = 0xd0, last_restart = 0xd7;
  Reader reader(path, bytes);
  JpegHeaders headers;
  std::vector<uint64_t> scan_ends;
  reader.seek(2);
  for (;;) {
    if (reader.u8("a JPEG marker") != 0xff) {
      reader.seek(reader.offset() - 1);
      reader.fail("expected a JPEG marker (FF), got another byte: the file is damaged");
    }
    int marker = 0xff;
    while (marker == 0xff) marker = reader.u8("a JPEG marker");  // any number of FF may precede it
    if (marker == end_of_image) return scan_ends;
    // Frames are C0 .. CF but for C4 (Huffman tables), C8 and CC (arithmetic conditioning); above C2 they are
    // lossless, hierarchical or arithmetic-coded.
    if (marker > 0xc2 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc)
      reader.fail(
          "this kind of JPEG cannot be read; only baseline and progressive Huffman-coded ones are supported");
    const uint16_t length = reader.u16_be("the length of a JPEG segment");
    if (length < 2) reader.fail("got a JPEG segment of ", length, " bytes, expected at least 2");
    const ByteView segment = reader.take(length - 2u, "a JPEG segment");
    headers.read_segment(marker, segment, reader);
    if (marker != start_of_scan) continue;
    // Coded data runs to the next marker that is neither a stuffed FF 00 nor a restart.
    const uint64_t needed = headers.restarts(segment);
    uint64_t restarts = 0;
    for (uint8_t previous = 0;;) {
      const uint8_t byte = reader.u8("the coded data of a JPEG picture (its end marker FF D9 is missing)");
      const bool marked = previous == 0xff && byte != 0 && byte != 0xff;
      if (marked && (byte < first_restart || byte > last_restart)) break;
      if (marked) ++restarts;
      previous = byte;
    }
    reader.seek(reader.offset() - 2);
    if (restarts < needed)
      reader.fail("the coded data have ", restarts, " restart markers, expected ", needed,
                  " for a picture of this size: the file is cut short");
    scan_ends.push_back(reader.offset());
  }
}

}  // namespace stairgrad::data
