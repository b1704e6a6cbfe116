#include "file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

namespace stairgrad::data {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return number_; }
  explicit operator bool() const { return number_ >= 0; }
  /// Closes now; false if the system reports a late write error.
  bool close() { return ::close(std::exchange(number_, -1)) == 0; }

 private:
  int number_;
};

std::string reason_of(int error) { return std::strerror(error); }

bool write_all(int descriptor, ByteView content) {
  while (!content.empty()) {
    const ssize_t written = ::write(descriptor, content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    content = content.subspan(static_cast<size_t>(written));
  }
  return true;
}

/// Removes the temporary file unless it was renamed.
struct Temporary {
  std::string path;
  bool keep = false;
  ~Temporary() {
    if (!keep) ::unlink(path.c_str());
  }
};

bool begins(ByteView bytes, std::string_view prefix) {
  return bytes.size() >= prefix.size() && std::memcmp(bytes.data(), prefix.data(), prefix.size()) == 0;
}

}  // namespace

Bytes read_file(const std::string& path, uint64_t limit) {
  const auto refuse = [&](uint64_t offset, const std::string& reason) {
    throw format_error(path, offset, reason);
  };
  // O_NONBLOCK: opening a named pipe must not wait for a writer.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) refuse(0, "the file cannot be opened: " + reason_of(errno));
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) refuse(0, "the file cannot be examined: " + reason_of(errno));
  if (S_ISDIR(info.st_mode)) refuse(0, "this is a folder, expected a file");
  if (!S_ISREG(info.st_mode)) refuse(0, "this is a pipe or device, expected a regular file");
  const auto size = static_cast<uint64_t>(info.st_size);
  if (size > limit) refuse(0, text("the file has ", size, " bytes, the limit is ", limit));

  Bytes bytes(size);
  uint64_t filled = 0;
  while (filled < size) {
    const ssize_t got = ::read(file.get(), bytes.data() + filled, size - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) refuse(filled, "reading failed: " + reason_of(errno));
    if (got == 0) refuse(filled, text("the file shrank while it was read, from ", size, " bytes"));
    filled += static_cast<uint64_t>(got);
  }
  uint8_t beyond;
  if (::read(file.get(), &beyond, 1) == 1) refuse(size, "the file grew while it was read");
  return bytes;
}

void atomic_write(const std::string& path, ByteView content) {
  const auto refuse = [&](const std::string& step, int error) {
    throw unavailable_error(text(path, " cannot be written: ", step, " failed (", reason_of(error),
                                 "); choose a folder that exists, is writable and has space"));
  };
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const std::string folder = parent.empty() ? std::string(".") : parent.string();
  if (std::filesystem::is_directory(path)) refuse("replacing a folder by a file", EISDIR);

  static std::atomic<unsigned> counter = 0;
  Temporary temporary;
  int descriptor;
  do {
    temporary.path = text(path, '.', ::getpid(), '.', counter++, ".part");
    descriptor = ::open(temporary.path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (descriptor < 0 && errno == EEXIST);
  if (descriptor < 0) {
    temporary.keep = true;
    refuse("creating a temporary file beside it", errno);
  }
  Descriptor file(descriptor);
  if (!write_all(file.get(), content)) refuse("writing", errno);
  if (::fsync(file.get()) != 0) refuse("fsync", errno);
  if (!file.close()) refuse("closing", errno);
  if (::rename(temporary.path.c_str(), path.c_str()) != 0) refuse("renaming the temporary file", errno);
  temporary.keep = true;

  // The rename itself lasts only once the folder is on disk. Some file systems cannot sync folders (EINVAL).
  const Descriptor directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory && ::fsync(directory.get()) != 0 && errno != EINVAL) refuse("fsync of the folder", errno);
}

void atomic_write(const std::string& path, std::string_view content) {
  atomic_write(path, ByteView(reinterpret_cast<const uint8_t*>(content.data()), content.size()));
}

std::string hint(ByteView bytes) {
  using namespace std::string_view_literals;
  if (bytes.empty()) return "; the file is empty: fetch it again";
  struct Kind {
    std::string_view prefix;
    const char* meaning;
  };
  static constexpr Kind kinds[] = {
      {"\x1f\x8b"sv, "this is gzip: unpack it first (gunzip, or tar xzf)"},
      {"version https://git-lfs"sv, "this is a Git-LFS pointer, not the data: run git lfs pull"},
      {"PK\x03\x04"sv, "this is a zip archive"},
      {"BZh"sv, "this is bzip2: unpack it first"},
      {"\xfd\x37zXZ"sv, "this is xz: unpack it first"},
      {"\x89PNG"sv, "this is a PNG image"},
      {"\xff\xd8\xff"sv, "this is a JPEG image"},
      {"\x80\x02"sv, "this is a Python pickle"},
      {"\x80\x03"sv, "this is a Python pickle"},
      {"\x80\x04"sv, "this is a Python pickle"},
  };
  for (const Kind& kind : kinds)
    if (begins(bytes, kind.prefix)) return text("; ", kind.meaning);

  std::string head(bytes.begin(),
                   bytes.begin() + static_cast<ptrdiff_t>(std::min<size_t>(bytes.size(), 256)));
  std::transform(head.begin(), head.end(), head.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  if (head.find("<html") != std::string::npos || head.find("<!doctype html") != std::string::npos)
    return "; this is an HTML page, perhaps the error page of a failed download: fetch the file again";
  if (bytes.size() > 262 && begins(bytes.subspan(257), "ustar")) return "; this is a tar archive: unpack it";
  return "";
}

void Reader::seek(uint64_t offset) {
  if (offset > bytes_.size()) fail("an offset of ", offset, " lies behind the end at ", bytes_.size());
  offset_ = offset;
}

ByteView Reader::take(uint64_t count, const char* what) {
  if (count > left())
    fail(what, " needs ", count, " bytes, but ", left(), " are left; the file is cut short");
  const ByteView taken = bytes_.subspan(offset_, count);
  offset_ += count;
  return taken;
}

uint64_t Reader::little(int count, const char* what) {
  const ByteView taken = take(static_cast<uint64_t>(count), what);
  uint64_t value = 0;
  for (int i = count; i-- > 0;) value = value << 8 | taken[static_cast<size_t>(i)];
  return value;
}

uint64_t Reader::big(int count, const char* what) {
  uint64_t value = 0;
  for (const uint8_t byte : take(static_cast<uint64_t>(count), what)) value = value << 8 | byte;
  return value;
}

}  // namespace stairgrad::data
