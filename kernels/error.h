// The four errors of the library. Each message is a sentence: what was got, what was expected, what to do.
#pragma once

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>

namespace stairgrad {

/// A caller's mistake: "[conv2d] weights: got (64,3,3,3), expected ic = 16 because src is (8,32,32,16)".
struct argument_error : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

/// A file that is not what it claims to be; says where and why.
struct format_error : std::runtime_error {
  format_error(const std::string& path, uint64_t offset, const std::string& reason)
      : std::runtime_error(path + " (byte " + std::to_string(offset) + "): " + reason),
        path(path),
        offset(offset),
        reason(reason) {}
  std::string path;
  uint64_t offset;
  std::string reason;
};

/// A NaN or infinity where a number was needed; names layer and step.
struct numeric_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Something this build or machine does not have; says how to get it.
struct unavailable_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Joins its arguments into one string, as operator<< prints them.
template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

/// Throws argument_error made of `message` unless `condition` holds.
template <class... Parts>
void check(bool condition, const Parts&... message) {
  if (!condition) throw argument_error(text(message...));
}

}  // namespace stairgrad
