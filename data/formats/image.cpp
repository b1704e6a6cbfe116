#include "image.h"

#include <zlib.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "jpeg.h"

namespace stairgrad::data {
namespace {

// A small file may ask stb to unpack far more than its header declares, so its allocations count against a
// budget. stb reports the refused allocation as an error.
thread_local uint64_t stb_budget = 0;

void* stb_allocate(uint64_t bytes) {
  if (bytes > stb_budget) return nullptr;
  stb_budget -= bytes;
  return std::malloc(bytes);
}

void* stb_reallocate(void* block, uint64_t bytes) {
  if (bytes > stb_budget) return nullptr;
  stb_budget -= bytes;
  return std::realloc(block, bytes);
}

}  // namespace
}  // namespace stairgrad::data

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wsign-compare"
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_NO_HDR
#define STBI_NO_LINEAR
#define STBI_MALLOC(bytes) stairgrad::data::stb_allocate(bytes)
#define STBI_REALLOC(block, bytes) stairgrad::data::stb_reallocate(block, bytes)
#define STBI_FREE(block) std::free(block)
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>
#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop

namespace stairgrad::data {
namespace {

using namespace std::string_view_literals;

constexpr uint8_t png_signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

bool is_png(ByteView bytes) {
  return bytes.size() >= 8 && std::equal(std::begin(png_signature), std::end(png_signature), bytes.begin());
}
bool is_jpeg(ByteView bytes) { return bytes.size() >= 2 && bytes[0] == 0xff && bytes[1] == 0xd8; }

/// What a PNG file says about its colours.
struct PngColours {
  int depth = 0, type = 0;
  ByteView palette;              // red, green, blue of each entry
  uint64_t type_at = 0;          // where the file holds the type
  std::vector<uint64_t> hidden;  // where the names of chunks are that stb must not see

  bool paletted() const { return type == 3; }
};

/// Walks the chunks up to IEND and verifies their checksums, which stb does not.
PngColours check_png(ByteView bytes, const std::string& path) {
  Reader reader(path, bytes);
  PngColours colours;
  reader.seek(sizeof png_signature);
  for (bool end = false; !end;) {
    const uint64_t start = reader.offset();
    const uint32_t length = reader.u32_be("the length of a PNG chunk");
    const ByteView chunk = reader.take(uint64_t{length} + 4, "a PNG chunk");
    const uLong computed = crc32(crc32(0, nullptr, 0), chunk.data(), static_cast<uInt>(chunk.size()));
    const std::string name(chunk.begin(), chunk.begin() + 4);
    if (reader.u32_be("the checksum of a PNG chunk") != computed)
      throw format_error(path, start, "the checksum of a PNG chunk is wrong: the file is damaged");
    const ByteView content = chunk.subspan(4);
    if (name == "IHDR" && content.size() == 13) {
      colours.depth = content[8];
      colours.type = content[9];
      colours.type_at = start + 8 + 9;
    }
    if (name == "PLTE") {
      if (!colours.palette.empty() || content.empty() || content.size() % 3 != 0 || content.size() > 768)
        throw format_error(path, start, "got a second palette, or one that is not 1 to 256 colours");
      colours.palette = content;
    }
    // A palette is not stb's business, and an empty IDAT at the start makes it copy nothing to a null
    // pointer.
    if ((name == "tRNS" && colours.paletted()) || (name == "IDAT" && content.empty()))
      colours.hidden.push_back(start + 4);
    end = name == "IEND";
  }
  if (reader.left() > 0) reader.fail(reader.left(), " bytes follow the end of the PNG picture");
  return colours;
}

/// The file as stb may read it. A palette is ignored, which gives a grey picture of the indices: stb checks
/// no index against the palette.
Bytes for_stb(ByteView bytes, const PngColours& colours) {
  Bytes file(bytes.begin(), bytes.end());
  if (colours.paletted()) file[colours.type_at] = 0;
  for (const uint64_t at : colours.hidden) std::ranges::copy("tEXt"sv, file.begin() + ptrdiff_t(at));
  return file;
}

void look_up(const stbi_uc* grey, const PngColours& colours, Array& image, const std::string& path) {
  const int largest = (1 << colours.depth) - 1, step = 255 / largest;  // grey values of few bits are spread
  uint8_t* to = image.data<uint8_t>();
  for (int64_t i = 0; i < image.size() / 3; ++i, to += 3) {
    const auto entry = static_cast<size_t>(grey[i] / step);
    if (3 * entry >= colours.palette.size())
      throw format_error(path, colours.type_at,
                         text("pixel (", i / image.dim(1), ",", i % image.dim(1), ") has colour ", entry,
                              " of a palette of ", colours.palette.size() / 3));
    std::ranges::copy(colours.palette.subspan(3 * entry, 3), to);
  }
}

/// Gives a JPEG file to stb, and notices when stb decodes more than is there. Where the coded data of a scan
/// end, stb would go on with zero bits in silence; here it gets zero bytes that are counted.
class JpegSource {
 public:
  /// `scan_ends` as of check_jpeg.
  JpegSource(ByteView bytes, std::span<const uint64_t> scan_ends) : bytes_(bytes), ends_(scan_ends) {}

  /// What stbi_load returns for three channels.
  stbi_uc* load(int& w, int& h, int& stored) {
    const stbi_io_callbacks callbacks = {
        [](void* self, char* to, int size) { return static_cast<JpegSource*>(self)->read(to, size); },
        [](void* self, int count) { static_cast<JpegSource*>(self)->skip(static_cast<uint64_t>(count)); },
        [](void* self) { return static_cast<JpegSource*>(self)->scan_is_over(); }};
    return stbi_load_from_callbacks(&callbacks, this, &w, &h, &stored, 3);
  }

  /// Where the coded data of the first scan that is cut short end, or 0.
  uint64_t cut_at() const { return cut_at_; }

 private:
  static constexpr int look_ahead = 4;  // bytes in stb's buffer of bits

  int read(char* to, int size) {
    if (!ends_.empty() && at_ == ends_[0]) {
      if (!over_ && beyond_ <= look_ahead) {
        ++beyond_;
        *to = 0;
        return 1;
      }
      if (beyond_ > look_ahead && cut_at_ == 0) cut_at_ = at_;
      ends_ = ends_.subspan(1);
      over_ = false;
      beyond_ = 0;
    }
    const uint64_t stop = ends_.empty() || at_ > ends_[0] ? bytes_.size() : ends_[0];
    const uint64_t count = std::min(static_cast<uint64_t>(size), stop - at_);
    std::copy_n(bytes_.begin() + static_cast<ptrdiff_t>(at_), count, to);
    at_ += count;
    return static_cast<int>(count);
  }

  void skip(uint64_t count) { at_ += std::min(count, bytes_.size() - at_); }

  /// stb asks for the end of the file when it has decoded a scan and looks for the next marker.
  int scan_is_over() {
    over_ = true;
    return at_ == bytes_.size();
  }

  ByteView bytes_;
  std::span<const uint64_t> ends_;  // of this scan and those that follow
  uint64_t at_ = 0, cut_at_ = 0;
  int beyond_ = 0;     // zero bytes given behind the coded data of this scan
  bool over_ = false;  // stb has decoded this scan
};

}  // namespace

Array read_image(const std::string& path, const ImageLimits& limits) {
  return decode_image(read_file(path, limits.file_bytes), path, limits);
}

Array decode_image(ByteView bytes, const std::string& path, const ImageLimits& limits) {
  const auto refuse = [&](const std::string& reason) { throw format_error(path, 0, reason); };
  if (!is_png(bytes) && bytes.size() >= 4 && std::equal(png_signature, png_signature + 4, bytes.begin()))
    throw format_error(path, 4,
                       "the signature of this PNG file is damaged, as when its line ends are converted like "
                       "those of a text; fetch it again, in binary mode");
  if (!is_png(bytes) && !is_jpeg(bytes)) refuse("this is neither a PNG nor a JPEG picture" + hint(bytes));
  if (bytes.size() > std::min<uint64_t>(limits.file_bytes, INT32_MAX))
    refuse(text("the file has ", bytes.size(), " bytes, the limit is ", limits.file_bytes));
  PngColours colours;
  std::vector<uint64_t> scan_ends;
  if (is_png(bytes))
    colours = check_png(bytes, path);
  else
    scan_ends = check_jpeg(bytes, path);

  const auto length = static_cast<int>(bytes.size());
  int w = 0, h = 0, stored = 0;
  stb_budget = uint64_t{1} << 20;
  if (!stbi_info_from_memory(bytes.data(), length, &w, &h, &stored))
    refuse(text("the picture cannot be read (", stbi_failure_reason(),
                "); only 8 or 16-bit PNG and 8-bit Huffman-coded JPEG are supported"));
  if (w < 1 || h < 1) refuse(text("got a picture of ", w, " x ", h, " pixels"));
  if (w > limits.edge || h > limits.edge || int64_t{w} * h > limits.pixels)
    refuse(text("got a picture of ", w, " x ", h, " pixels, the limits are ", limits.edge,
                " for an edge and ", limits.pixels, " in all; make it smaller"));

  // Generous for any honest file: 16-bit RGBA as unpacked, unfiltered and converted, or progressive
  // coefficients.
  constexpr uint64_t bytes_per_pixel = 64, fixed = uint64_t{8} << 20;
  stb_budget = bytes_per_pixel * static_cast<uint64_t>(w) * static_cast<uint64_t>(h) + fixed;
  const bool paletted = colours.paletted();
  const Bytes changed = paletted || !colours.hidden.empty() ? for_stb(bytes, colours) : Bytes();
  JpegSource jpeg(bytes, scan_ends);
  const std::unique_ptr<stbi_uc, void (*)(void*)> pixels(
      is_jpeg(bytes) ? jpeg.load(w, h, stored)
                     : stbi_load_from_memory(changed.empty() ? bytes.data() : changed.data(), length, &w, &h,
                                             &stored, paletted ? 1 : 3),
      std::free);
  if (!pixels) refuse(text("the picture cannot be decoded (", stbi_failure_reason(), ")"));
  if (jpeg.cut_at() > 0)
    throw format_error(path, jpeg.cut_at(),
                       "the coded data end before the picture does: the file is cut short; fetch it again");
  Array image({h, w, 3}, DType::u8);
  if (paletted)
    look_up(pixels.get(), colours, image, path);
  else
    std::copy_n(pixels.get(), image.size(), image.data<uint8_t>());
  return image;
}

Bytes encode_png(const Array& image) {
  check(image.dtype() == DType::u8 && image.rank() == 3 && image.size() > 0 &&
            (image.dim(2) == 1 || image.dim(2) == 3 || image.dim(2) == 4),
        "[png] got ", name_of(image.dtype()), image.shape(),
        ", expected u8 (h, w, 1), (h, w, 3) or (h, w, 4)");
  Bytes bytes;
  const auto append = [](void* context, void* data, int size) {
    const auto* first = static_cast<const uint8_t*>(data);
    static_cast<Bytes*>(context)->insert(static_cast<Bytes*>(context)->end(), first, first + size);
  };
  const int h = static_cast<int>(image.dim(0)), w = static_cast<int>(image.dim(1)),
            c = static_cast<int>(image.dim(2));
  const bool written = stbi_write_png_to_func(append, &bytes, w, h, c, image.data<uint8_t>(), w * c);
  check(written, "[png] stb_image_write could not encode a picture of ", image.shape());
  return bytes;
}

void write_png(const std::string& path, const Array& image) { atomic_write(path, encode_png(image)); }

std::string base64(ByteView bytes) {
  constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - i);
    uint32_t group = 0;
    for (size_t j = 0; j < 3; ++j) group = group << 8 | (j < count ? bytes[i + j] : 0u);
    for (size_t j = 0; j < 4; ++j) out += j <= count ? digits[group >> (18 - 6 * j) & 63] : '=';
  }
  return out;
}

}  // namespace stairgrad::data
