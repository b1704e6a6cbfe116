// What the tests of this room share.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "data/formats/file.h"
#include "message.h"

namespace stairgrad::data {

/// A folder that is gone after the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "stairgrad-test-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string operator/(const std::string& name) const { return path_ + '/' + name; }
  const std::string& path() const { return path_; }

  /// Writes a file and returns its path.
  std::string file(const std::string& name, ByteView content) const {
    std::filesystem::create_directories(std::filesystem::path(*this / name).parent_path());
    std::ofstream out(*this / name, std::ios::binary);
    out.write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
    return *this / name;
  }
  std::string file(const std::string& name, std::string_view content) const {
    return file(name, ByteView(reinterpret_cast<const uint8_t*>(content.data()), content.size()));
  }

 private:
  std::string path_;
};

inline Bytes bytes_of(std::string_view content) { return {content.begin(), content.end()}; }

inline Bytes operator+(Bytes a, ByteView b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// What a parser says against its input, or "" if it takes it.
template <class Parse>
std::string refusal(Parse&& parse) {
  return message_of<format_error>(parse);
}

/// Every proper beginning of `whole` must be refused; returns the length of the first that is not, or -1.
template <class Parse>
int64_t first_accepted_truncation(ByteView whole, Parse&& parse) {
  for (size_t length = 0; length < whole.size(); ++length) {
    // A fresh block of exactly this size, so that AddressSanitizer sees a read behind its end.
    const Bytes part(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(length));
    if (refusal([&] { parse(part); }).empty()) return static_cast<int64_t>(length);
  }
  return -1;
}

}  // namespace stairgrad::data
