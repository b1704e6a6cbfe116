// A folder for the files of a test.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>

namespace stairgrad {

/// Empty, this process's own, and gone with the test.
struct Folder {
  Folder() {
    std::filesystem::remove_all(path);
    std::filesystem::create_directories(path);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string operator/(const std::string& name) const { return (path / name).string(); }

  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("stairgrad_test_" + std::to_string(getpid()));
};

}  // namespace stairgrad
