#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <mutex>
#include <set>

#include "../dataset.h"
#include "sets.h"

namespace stairgrad::data {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::string default_root() {
  if (const std::string root = variable("STAIRGRAD_DATA"); !root.empty()) return root;
  if (const std::string cache = variable("XDG_CACHE_HOME"); !cache.empty()) return cache + "/stairgrad";
  return variable("HOME") + "/.cache/stairgrad";
}

}  // namespace

std::string find_data(const Place& place, const std::string& dir, const std::string& wanted) {
  // An explicit folder is meant: never fall back to other data behind the caller's back.
  const std::string root = dir.empty() ? default_root() : dir;
  std::vector<std::string> folders = {root + '/' + place.subfolder, root};
  if (dir.empty() && !place.system_folder.empty()) folders.push_back(place.system_folder);
  std::string tried;
  for (const std::string& folder : folders) {
    for (const char* suffix : {"", ".gz"})
      if (std::error_code ignored; std::filesystem::exists(folder + '/' + wanted + suffix, ignored))
        return folder;
    tried += (tried.empty() ? "" : ", ") + folder;
  }
  throw unavailable_error(text("[data] no ", place.name, " (", wanted, ") in ", tried, "; ", place.advice));
}

std::string find_file(const std::string& path, const std::string& dir) {
  std::error_code ignored;
  if (path.empty() || path[0] == '/' || std::filesystem::exists(path, ignored)) return path;
  const std::string beside = (dir.empty() ? default_root() : dir) + '/' + path;
  return std::filesystem::exists(beside, ignored) ? beside : path;
}

void warn_once(const std::string& message) {
  static std::mutex mutex;
  static std::set<std::string> printed;
  const std::lock_guard lock(mutex);
  if (printed.insert(message).second) std::cerr << message << std::endl;
}

}  // namespace stairgrad::data
