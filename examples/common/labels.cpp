#include "labels.h"

#include <algorithm>
#include <sstream>

#include "../../data/formats/file.h"
#include "../../kernels/error.h"

namespace stairgrad::examples {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) {
    if (part.ends_with('\r')) part.pop_back();
    parts.push_back(part);
  }
  return parts;
}

}  // namespace

std::string join_lines(const std::vector<std::string>& lines) {
  std::string all;
  for (const std::string& line : lines) all += (all.empty() ? "" : "\n") + line;
  return all;
}

std::vector<std::string> split_lines(const std::string& text) { return split(text, '\n'); }

std::vector<std::string> read_labels(const std::string& path) {
  const data::Bytes bytes = data::read_file(path, 16 << 20);
  const std::vector<std::string> lines = split_lines(std::string(bytes.begin(), bytes.end()));
  if (lines.empty()) throw format_error(path, 0, "it names no classes");
  const std::vector<std::string> header = split(lines[0], '\t');
  if (header.size() == 1) return lines;

  const auto column = [&](const char* name) {
    const auto found = std::ranges::find(header, name);
    if (found == header.end())
      throw format_error(path, 0, text("its header has no column \"", name, "\"; expected class and name"));
    return static_cast<size_t>(found - header.begin());
  };
  const size_t number = column("class"), name = column("name");
  std::vector<std::string> names;
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::vector<std::string> row = split(lines[i], '\t');
    const std::string digits = number < row.size() && name < row.size() ? row[number] : "";
    if (digits.empty() || digits.size() > 5 || digits.find_first_not_of("0123456789") != std::string::npos)
      throw format_error(path, 0, text("line ", i + 1, ": expected a class number and a name"));
    const auto label = static_cast<size_t>(std::stoi(digits));
    for (size_t k = names.size(); k <= label; ++k) names.push_back(text("class ", k));
    names[label] = row[name];
  }
  return names;
}

}  // namespace stairgrad::examples
