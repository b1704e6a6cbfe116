// Whole files, read with a limit and written atomically.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "../../kernels/error.h"

namespace stairgrad::data {

using Bytes = std::vector<uint8_t>;
using ByteView = std::span<const uint8_t>;

/// The bytes of a regular file. Throws format_error when it is missing, not a regular file, unreadable,
/// larger than `limit`, or changes while it is read.
Bytes read_file(const std::string& path, uint64_t limit = uint64_t{4} << 30);

/// Replaces the file `path` as a whole: a temporary file in the same folder, fsync, rename, fsync of the
/// folder. Whoever reads `path` meets the old or the new content, never a part, even after a crash. Throws
/// unavailable_error when the folder or the file cannot be written; the old file is then untouched.
void atomic_write(const std::string& path, ByteView content);
void atomic_write(const std::string& path, std::string_view content);

/// What the bytes are when they are not what a parser expected: "; this is gzip: unpack it first", or "" when
/// nothing is recognised. Meant for the end of an error message.
std::string hint(ByteView bytes);

/// A cursor over the bytes of a file, or of a part that begins at `base`, that never leaves them. Errors
/// count from the start of the file.
class Reader {
 public:
  Reader(const std::string& path, ByteView bytes, uint64_t base = 0)
      : path_(path), bytes_(bytes), base_(base) {}

  uint64_t offset() const { return offset_; }
  /// The offset, counted from the start of the file.
  uint64_t position() const { return base_ + offset_; }
  uint64_t left() const { return bytes_.size() - offset_; }
  void seek(uint64_t offset);

  /// The next `count` bytes. Throws format_error that names `what` when fewer are left.
  ByteView take(uint64_t count, const char* what);
  uint8_t u8(const char* what) { return take(1, what)[0]; }
  uint16_t u16_le(const char* what) { return static_cast<uint16_t>(little(2, what)); }
  uint32_t u32_le(const char* what) { return static_cast<uint32_t>(little(4, what)); }
  uint64_t u64_le(const char* what) { return little(8, what); }
  uint16_t u16_be(const char* what) { return static_cast<uint16_t>(big(2, what)); }
  uint32_t u32_be(const char* what) { return static_cast<uint32_t>(big(4, what)); }

  /// Throws format_error at the current offset.
  template <class... Parts>
  [[noreturn]] void fail(const Parts&... reason) const {
    throw format_error(path_, position(), text(reason...));
  }

 private:
  uint64_t little(int count, const char* what);
  uint64_t big(int count, const char* what);

  std::string path_;
  ByteView bytes_;
  uint64_t base_, offset_ = 0;
};

}  // namespace stairgrad::data
