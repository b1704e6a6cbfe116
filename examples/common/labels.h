// Names of classes.
#pragma once

#include <string>
#include <vector>

namespace stairgrad::examples {

/// Names by class number: from a file with one name a line, or from a table with tabs whose header has the
/// columns "class" (a number) and "name". Throws format_error for a file that is neither.
std::vector<std::string> read_labels(const std::string& path);

/// One name a line, as model files keep them in the note "classes".
std::string join_lines(const std::vector<std::string>& lines);
std::vector<std::string> split_lines(const std::string& text);

}  // namespace stairgrad::examples
