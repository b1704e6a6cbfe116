#include "table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "../../kernels/error.h"

namespace stairgrad::examples {

std::string fixed(double x, int digits) {
  if (!std::isfinite(x)) return "-";
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*f", digits, x);
  return buffer;
}

std::string percent(double x, int digits) { return fixed(x, digits) + " %"; }

std::string count(int64_t n) {
  std::string digits = std::to_string(n);
  for (int64_t i = static_cast<int64_t>(digits.size()) - 3; i > (n < 0 ? 1 : 0); i -= 3) {
    digits.insert(static_cast<size_t>(i), 1, ',');
  }
  return digits;
}

std::string scaled(double n, const std::string& unit) {
  static const char* const prefixes[] = {"", "k", "M", "G", "T"};
  int step = 0;
  while (std::abs(n) >= 1000 && step < 4) n /= 1000, ++step;
  const std::string suffix = prefixes[step] + unit;
  return fixed(n, step == 0 ? 0 : std::abs(n) < 10 ? 2 : 1) + (suffix.empty() ? "" : " " + suffix);
}

std::string bytes(double n) { return scaled(n, "B"); }

std::string duration(double seconds) {
  if (!std::isfinite(seconds)) return "-";
  if (seconds < 10) return fixed(seconds, 1) + " s";
  const int64_t whole = std::llround(seconds);
  if (whole < 60) return std::to_string(whole) + " s";
  if (whole < 3600) return std::to_string(whole / 60) + " min " + std::to_string(whole % 60) + " s";
  return std::to_string(whole / 3600) + " h " + std::to_string(whole / 60 % 60) + " min";
}

namespace {

/// Columns that a UTF-8 word takes on a terminal.
size_t width(const std::string& word) {
  return static_cast<size_t>(std::count_if(
      word.begin(), word.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

}  // namespace

Table& Table::row(std::vector<std::string> cells) {
  check(cells.size() == header_.size(), "[table] row: got ", cells.size(), " cells, expected ",
        header_.size());
  rows_.push_back(std::move(cells));
  return *this;
}

std::string Table::text() const {
  std::vector<size_t> widths;
  for (size_t c = 0; c < header_.size(); ++c) {
    widths.push_back(width(header_[c]));
    for (const auto& row : rows_) widths[c] = std::max(widths[c], width(row[c]));
  }
  std::string drawn;
  const auto draw = [&](const std::vector<std::string>& row) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      const std::string gap(widths[c] - width(row[c]), ' ');
      line += (c ? "   " : "") + (c ? gap + row[c] : row[c] + gap);
    }
    drawn += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  };
  draw(header_);
  std::string rule;
  for (size_t c = 0; c < widths.size(); ++c) {
    if (c) rule += "   ";
    for (size_t i = 0; i < widths[c]; ++i) rule += "─";
  }
  drawn += rule + "\n";
  for (const auto& row : rows_) draw(row);
  return drawn;
}

std::string Table::html() const {
  const auto draw = [](const std::vector<std::string>& row, const char* tag) {
    std::string line = "<tr>";
    for (const std::string& cell : row)
      line += stairgrad::text("<", tag, ">", escape_html(cell), "</", tag, ">");
    return line + "</tr>\n";
  };
  std::string drawn = "<table>\n<thead>" + draw(header_, "th") + "</thead>\n<tbody>\n";
  for (const auto& row : rows_) drawn += draw(row, "td");
  return drawn + "</tbody>\n</table>\n";
}

std::string escape_html(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

}  // namespace stairgrad::examples
