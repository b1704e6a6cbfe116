#include "gzip.h"

#include <zlib.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <new>

namespace stairgrad::data {

bool is_gzip(ByteView bytes) { return bytes.size() >= 2 && bytes[0] == 0x1f && bytes[1] == 0x8b; }

Bytes gunzip(ByteView bytes, const std::string& path, uint64_t limit) {
  const auto refuse = [&](uint64_t offset, const std::string& reason) {
    throw format_error(path, offset, reason + "; fetch the file again");
  };
  if (!is_gzip(bytes)) refuse(0, "this is not a gzip file" + hint(bytes));
  if (bytes.size() > std::numeric_limits<uInt>::max()) refuse(0, "a gzip file of 4 GiB or more");

  z_stream stream{};
  if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) throw std::bad_alloc();
  const std::unique_ptr<z_stream, int (*)(z_stream*)> guard(&stream, inflateEnd);
  stream.next_in = const_cast<Bytef*>(bytes.data());
  stream.avail_in = static_cast<uInt>(bytes.size());

  Bytes content;
  uint64_t filled = 0;
  for (;;) {
    if (filled == content.size()) {
      if (filled > limit)
        refuse(stream.total_in, text("it unpacks to more than the limit of ", limit, " bytes"));
      content.resize(std::min(limit + 1, std::max<uint64_t>(4 * bytes.size(), 2 * filled)));
    }
    const uint64_t room = std::min<uint64_t>(content.size() - filled, std::numeric_limits<uInt>::max());
    stream.next_out = content.data() + filled;
    stream.avail_out = static_cast<uInt>(room);
    const int status = inflate(&stream, Z_NO_FLUSH);
    filled += room - stream.avail_out;
    const uint64_t offset = bytes.size() - stream.avail_in;
    if (status == Z_STREAM_END) {
      if (stream.avail_in == 0) break;
      if (!is_gzip(bytes.subspan(offset))) refuse(offset, "bytes behind the end of the gzip data");
      inflateReset(&stream);
    } else if (status == Z_BUF_ERROR || (status == Z_OK && stream.avail_in == 0 && stream.avail_out > 0)) {
      refuse(offset, "the gzip data is cut short");
    } else if (status != Z_OK) {
      refuse(offset, text("damaged gzip data (", stream.msg ? stream.msg : "unknown error", ")"));
    }
  }
  if (filled > limit) refuse(0, text("it unpacks to more than the limit of ", limit, " bytes"));
  content.resize(filled);
  return content;
}

}  // namespace stairgrad::data
