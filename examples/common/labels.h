// Names of classes, one a line, as model files keep them in the note "classes".
#pragma once

#include <string>
#include <vector>

namespace stairgrad::examples {

std::string join_lines(const std::vector<std::string>& lines);
std::vector<std::string> split_lines(const std::string& text);

}  // namespace stairgrad::examples
