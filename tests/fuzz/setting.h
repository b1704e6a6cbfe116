// Settings of the fuzzers, from the environment.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace stairgrad {

inline int64_t setting(const char* name, int64_t otherwise) {
  const char* value = std::getenv(name);
  return value ? std::atoll(value) : otherwise;
}

}  // namespace stairgrad
