// What an error says.
#pragma once

#include <string>

namespace stairgrad {

/// The message of the Error that `body` throws, or "" if it throws none. Any other exception passes through
/// and fails the test.
template <class Error, class Body>
std::string message_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline bool contains(const std::string& words, const std::string& part) {
  return words.find(part) != std::string::npos;
}

}  // namespace stairgrad
