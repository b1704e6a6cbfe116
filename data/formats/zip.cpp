#include "zip.h"

#include <zlib.h>

#include <algorithm>
#include <limits>

namespace stairgrad::data {
namespace {

constexpr uint32_t local_signature = 0x04034b50, central_signature = 0x02014b50, end64_signature = 0x06064b50,
                   locator64_signature = 0x07064b50;
constexpr uint64_t end_size = 22, locator64_size = 20;
constexpr uint32_t in_zip64 = 0xffffffff;
constexpr uint16_t encrypted = 1, sizes_follow = 8;

struct Entry {
  std::string name;
  uint16_t flags, method;
  uint32_t checksum;
  uint64_t packed, size, header;
};

struct Directory {
  uint64_t offset, size, entries;
};

/// Finds the end record, which a comment of up to 64 KiB may follow.
uint64_t find_end(ByteView bytes, const Reader& reader) {
  const uint64_t furthest = end_size + std::numeric_limits<uint16_t>::max();
  for (uint64_t back = end_size; back <= std::min<uint64_t>(bytes.size(), furthest); ++back) {
    const ByteView tail = bytes.subspan(bytes.size() - back);
    if (tail[0] == 'P' && tail[1] == 'K' && tail[2] == 5 && tail[3] == 6 &&
        (tail[20] | tail[21] << 8) == int(back - end_size))
      return bytes.size() - back;
  }
  reader.fail("the zip archive has no end record: the file is cut short");
}

Directory find_directory(ByteView bytes, Reader& reader) {
  const uint64_t end = find_end(bytes, reader);
  reader.seek(end + 4);
  if (reader.u32_le("the disk numbers") != 0) reader.fail("the zip archive is split over several files");
  reader.u16_le("the number of entries here");
  Directory directory{};
  directory.entries = reader.u16_le("the number of entries");
  directory.size = reader.u32_le("the size of the directory");
  directory.offset = reader.u32_le("the offset of the directory");
  if (end < locator64_size) return directory;
  reader.seek(end - locator64_size);
  if (reader.u32_le("a signature") != locator64_signature) return directory;
  reader.u32_le("a disk number");
  reader.seek(reader.u64_le("the offset of the zip64 record"));
  if (reader.u32_le("the zip64 record") != end64_signature)
    reader.fail("the zip64 record is not where it should be");
  reader.take(20, "the zip64 record");
  reader.u64_le("the number of entries here");
  directory.entries = reader.u64_le("the number of entries");
  directory.size = reader.u64_le("the size of the directory");
  directory.offset = reader.u64_le("the offset of the directory");
  return directory;
}

/// Replaces the fields that hold FFFFFFFF by those of the zip64 extra field.
void read_extra(Reader& reader, uint64_t length, std::initializer_list<uint64_t*> fields) {
  constexpr uint16_t zip64 = 1;
  const uint64_t end = reader.offset() + length;
  while (reader.offset() + 4 <= end) {
    const uint16_t kind = reader.u16_le("an extra field"), size = reader.u16_le("an extra field");
    if (size > end - reader.offset()) reader.fail("an extra field is longer than its room");
    const uint64_t next = reader.offset() + size;
    if (kind == zip64)
      for (uint64_t* field : fields)
        if (*field == in_zip64) {
          if (next - reader.offset() < 8) reader.fail("the zip64 field is too short");
          *field = reader.u64_le("a zip64 field");
        }
    reader.seek(next);
  }
  reader.seek(end);
}

Entry read_entry(Reader& reader) {
  if (reader.u32_le("an entry of the directory") != central_signature)
    reader.fail("a damaged entry of the directory");
  reader.take(4, "versions");
  Entry entry;
  entry.flags = reader.u16_le("flags");
  entry.method = reader.u16_le("the method");
  reader.take(4, "the time");
  entry.checksum = reader.u32_le("the checksum");
  entry.packed = reader.u32_le("a size");
  entry.size = reader.u32_le("a size");
  const uint16_t name = reader.u16_le("a length"), extra = reader.u16_le("a length"),
                 comment = reader.u16_le("a length");
  reader.take(8, "attributes");
  entry.header = reader.u32_le("the offset of an entry");
  const ByteView letters = reader.take(name, "the name of an entry");
  entry.name.assign(letters.begin(), letters.end());
  if (extra > reader.left()) reader.fail("an extra field reaches beyond the file");
  read_extra(reader, extra, {&entry.size, &entry.packed, &entry.header});
  reader.take(comment, "a comment");
  return entry;
}

ByteView content_of(const Entry& entry, ByteView bytes, const std::string& path) {
  Reader reader(path, bytes);
  reader.seek(entry.header);
  if (reader.u32_le("the header of an entry") != local_signature)
    reader.fail("entry ", entry.name, " has no header here");
  reader.u16_le("a version");
  const uint16_t flags = reader.u16_le("flags"), method = reader.u16_le("the method");
  if (((entry.flags | flags) & encrypted) != 0)
    reader.fail("entry ", entry.name, " is encrypted, which is not supported");
  if (entry.method != 0 || method != 0 || entry.packed != entry.size)
    reader.fail("entry ", entry.name,
                " is compressed; expected a file as torch.save writes it, with stored entries");
  reader.take(4, "the time");
  const uint32_t checksum = reader.u32_le("the checksum"), packed = reader.u32_le("a size"),
                 size = reader.u32_le("a size");
  const bool stated = (flags & sizes_follow) == 0;
  if (stated && (checksum != entry.checksum || (packed != entry.packed && packed != in_zip64) ||
                 (size != entry.size && size != in_zip64)))
    reader.fail("the header of entry ", entry.name, " contradicts the directory");
  const uint16_t name = reader.u16_le("a length"), extra = reader.u16_le("a length");
  if (!std::ranges::equal(reader.take(name, "a name"), entry.name,
                          [](uint8_t a, char b) { return a == static_cast<uint8_t>(b); }))
    reader.fail("the header of entry ", entry.name, " has another name");
  reader.take(extra, "an extra field");
  const ByteView content = reader.take(entry.size, "the content of an entry");
  if (crc32_z(0, content.data(), content.size()) != entry.checksum)
    reader.fail("entry ", entry.name, " has a wrong checksum: the file is damaged");
  return content;
}

}  // namespace

bool is_zip(ByteView bytes) {
  return bytes.size() >= 4 && bytes[0] == 'P' && bytes[1] == 'K' && bytes[2] == 3 && bytes[3] == 4;
}

std::map<std::string, ByteView> read_zip(ByteView bytes, const std::string& path) {
  constexpr uint64_t entry_size = 46;
  Reader reader(path, bytes);
  const Directory directory = find_directory(bytes, reader);
  if (directory.entries > directory.size / entry_size)
    reader.fail(directory.entries, " entries do not fit a directory of ", directory.size, " bytes");
  reader.seek(directory.offset);
  std::map<std::string, ByteView> entries;
  uint64_t total = 0;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    const Entry entry = read_entry(reader);
    // Entries that share their bytes would make checking a small file arbitrarily slow.
    total += std::min<uint64_t>(entry.size, bytes.size());
    if (total > bytes.size()) reader.fail("the entries together are larger than the file");
    if (!entries.emplace(entry.name, content_of(entry, bytes, path)).second)
      reader.fail("the name ", entry.name, " occurs twice");
  }
  return entries;
}

}  // namespace stairgrad::data
