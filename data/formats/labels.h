// Which class pictures have, and what the classes are called, in files of text.
#pragma once

#include "file.h"

namespace stairgrad::data {

/// Whether a line has printable characters and tabs only, in UTF-8.
bool is_text(const std::string& line);

/// A line of a table, cut at its tabs.
struct TableRow {
  uint64_t line, offset;  ///< from 1; of its first byte
  std::vector<std::string> cells;

  /// Throws format_error that names the line.
  [[noreturn]] void refuse(const std::string& path, const std::string& reason) const;
  /// The first cell as the name of a file in the table's own folder. Throws format_error for a path and for a
  /// hidden file.
  const std::string& file(const std::string& path) const;
};

/// All lines. Throws format_error for what is no text in UTF-8.
std::vector<TableRow> parse_table(ByteView bytes, const std::string& path);

/// Pictures, their classes, and names by class: "class 7" where the table has none.
struct LabelTable {
  std::vector<std::string> files;
  std::vector<int32_t> labels;
  std::vector<std::string> class_names;
};

/// labels.tsv: a header with the columns file, class and perhaps name, then a line a picture, whose class is
/// a number below 100,000. Throws format_error that names the line.
LabelTable parse_labels(ByteView bytes, const std::string& path);

/// Names by class: from a text with one name a line, or from a table whose header has the columns class and
/// name. Throws format_error for a file that is neither.
std::vector<std::string> parse_class_names(ByteView bytes, const std::string& path);
std::vector<std::string> read_class_names(const std::string& path);

}  // namespace stairgrad::data
