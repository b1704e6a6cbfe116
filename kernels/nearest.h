// For error messages: which known name a wrong one was probably meant to be.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace stairgrad {

/// The known name that the fewest single-letter changes turn `name` into (Levenshtein distance), if
/// `furthest` changes are enough; else "".
std::string nearest(const std::string& name, const std::vector<std::string>& known,
                    size_t furthest = static_cast<size_t>(-1));

}  // namespace stairgrad
