// Tables for people, and numbers as people read them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace stairgrad::examples {

std::string fixed(double x, int digits);                     ///< "91.73"; "-" for NaN
std::string percent(double x, int digits = 2);               ///< "91.73 %"
std::string count(int64_t n);                                ///< "1,234,567"
std::string bytes(double n);                                 ///< "1.2 MB"
std::string duration(double seconds);                        ///< "1 min 20 s"
std::string scaled(double n, const std::string& unit = {});  ///< "41.0 M"

/// Rows of words under a header; the first column is aligned left, the others right.
class Table {
 public:
  explicit Table(std::vector<std::string> header) : header_(std::move(header)) {}
  /// Throws argument_error unless there is one cell a column.
  Table& row(std::vector<std::string> cells);

  /// With aligned columns, for a terminal.
  std::string text() const;
  /// As an HTML table.
  std::string html() const;

 private:
  std::vector<std::string> header_;
  std::vector<std::vector<std::string>> rows_;
};

/// `text` with &, <, > and quotes as HTML writes them.
std::string escape_html(const std::string& text);

}  // namespace stairgrad::examples
