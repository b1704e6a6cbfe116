#include "labels.h"

#include <algorithm>
#include <sstream>

#include "json.h"

namespace stairgrad::data {
namespace {

size_t column(const TableRow& header, const char* name) {
  return static_cast<size_t>(std::ranges::find(header.cells, name) - header.cells.begin());
}

/// The class in this cell; `names` then has an entry for it.
size_t class_in(const TableRow& row, size_t cell, const std::string& path, std::vector<std::string>& names) {
  constexpr size_t most_digits = 5;
  const std::string& digits = row.cells[cell];
  if (digits.empty() || digits.size() > most_digits ||
      digits.find_first_not_of("0123456789") != std::string::npos)
    row.refuse(path, "got the class \"" + digits + "\", expected a number from 0 to 99999");
  const auto label = static_cast<size_t>(std::stoi(digits));
  for (size_t k = names.size(); k <= label; ++k) names.push_back(text("class ", k));
  return label;
}

void expect_cells(const TableRow& row, const TableRow& header, const std::string& path) {
  if (row.cells.size() != header.cells.size())
    row.refuse(path, text("got ", row.cells.size(), " columns, expected ", header.cells.size()));
}

}  // namespace

bool is_text(const std::string& line) {
  const auto control = [](char c) { return (c >= 0 && c < ' ' && c != '\t') || c == 0x7f; };
  if (std::ranges::any_of(line, control)) return false;
  try {
    Json(line).dump();
    return true;
  } catch (const Json::exception&) {  // not UTF-8
    return false;
  }
}

void TableRow::refuse(const std::string& path, const std::string& reason) const {
  throw format_error(path, offset, text("line ", line, ": ", reason));
}

const std::string& TableRow::file(const std::string& path) const {
  const std::string& name = cells[0];
  if (name.empty() || name[0] == '.' || name.find('/') != std::string::npos)
    refuse(path, "got the file name \"" + name + "\", expected a plain name");
  return name;
}

std::vector<TableRow> parse_table(ByteView bytes, const std::string& path) {
  if (const std::string what = hint(bytes); !what.empty())
    throw format_error(path, 0, "expected a text of lines" + what);
  std::istringstream lines(std::string(bytes.begin(), bytes.end()));
  std::vector<TableRow> rows;
  uint64_t offset = 0;
  for (std::string line; std::getline(lines, line);) {
    rows.push_back({rows.size() + 1, offset, {}});
    offset += line.size() + 1;
    if (line.ends_with('\r')) line.pop_back();
    if (!is_text(line)) rows.back().refuse(path, "it is no text in UTF-8");
    std::istringstream cells(line);
    for (std::string cell; std::getline(cells, cell, '\t');) rows.back().cells.push_back(cell);
  }
  return rows;
}

LabelTable parse_labels(ByteView bytes, const std::string& path) {
  const std::vector<TableRow> rows = parse_table(bytes, path);
  const TableRow& header = rows[0];
  if (header.cells.size() < 2 || header.cells[0] != "file" || header.cells[1] != "class")
    header.refuse(path, "expected the columns file and class, separated by tabs");
  const size_t name = column(header, "name");
  LabelTable table;
  for (size_t i = 1; i < rows.size(); ++i) {
    expect_cells(rows[i], header, path);
    const size_t label = class_in(rows[i], 1, path, table.class_names);
    table.files.push_back(rows[i].file(path));
    table.labels.push_back(static_cast<int32_t>(label));
    if (name < header.cells.size()) table.class_names[label] = rows[i].cells[name];
  }
  return table;
}

std::vector<std::string> parse_class_names(ByteView bytes, const std::string& path) {
  const std::vector<TableRow> rows = parse_table(bytes, path);
  const TableRow& header = rows[0];
  std::vector<std::string> names;
  if (header.cells.size() < 2) {
    for (const TableRow& row : rows) {
      if (row.cells.size() != 1) row.refuse(path, "expected one name");
      names.push_back(row.cells[0]);
    }
    return names;
  }
  const size_t number = column(header, "class"), name = column(header, "name");
  if (std::max(number, name) == header.cells.size())
    header.refuse(path, "expected the columns class and name, or one name a line");
  for (size_t i = 1; i < rows.size(); ++i) {
    expect_cells(rows[i], header, path);
    names[class_in(rows[i], number, path, names)] = rows[i].cells[name];
  }
  return names;
}

std::vector<std::string> read_class_names(const std::string& path) {
  return parse_class_names(read_file(path, 16 << 20), path);
}

}  // namespace stairgrad::data
