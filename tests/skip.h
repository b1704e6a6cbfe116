// A test that lacks something the machine does not have says so instead of passing silently.
#pragma once

#include <iostream>
#include <string>

namespace stairgrad {

/// Prints the line "SKIPPED: reason", which tests/run.sh counts. The test returns after it.
inline void skip(const std::string& reason) { std::cout << "SKIPPED: " << reason << std::endl; }

}  // namespace stairgrad
