#include "dispatch.h"

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string_view>
#include <unordered_set>

namespace stairgrad::kernels {

bool dispatch_is_verbose() {
  static const bool verbose = [] {
    const char* words = std::getenv("STAIRGRAD_VERBOSE");
    return words && std::string_view(words).find("dispatch") != std::string_view::npos;
  }();
  return verbose;
}

void report_dispatch(const std::string& operation, const std::string& kernel, const std::string& reason) {
  static std::mutex mutex;
  static std::unordered_set<std::string> reported;
  const std::lock_guard lock(mutex);
  if (!reported.insert(operation).second) return;
  std::fprintf(stderr, "[dispatch] %s: %s (%s)\n", operation.c_str(), kernel.c_str(), reason.c_str());
}

}  // namespace stairgrad::kernels
