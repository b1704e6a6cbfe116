// Image folders. Three layouts are recognised:
//   DIR/train/CLASS/*.jpg and DIR/val or DIR/test likewise    ImageNet's; or DIR/CLASS/*.jpg for both splits
//   DIR/train/CLASS/images/*.JPEG, DIR/val/images/ with DIR/val/val_annotations.txt    Tiny-ImageNet's
//   DIR/labels.tsv with the columns file, class and perhaps name; the files lie beside it
// Classes are the names of sub-folders, sorted by bytes, so that no locale changes a class number.
#include <algorithm>
#include <filesystem>
#include <map>
#include <sstream>

#include "../formats/image.h"
#include "sets.h"

namespace stairgrad::data {
namespace {

namespace fs = std::filesystem;

struct Files {
  std::vector<std::string> paths;
  std::vector<int32_t> labels;
  std::vector<std::string> class_names;
};

const std::string advice =
    "expected sub-folders, one a class, with JPEG or PNG files; name the folder with --data DIR";

bool is_picture(const fs::path& path) {
  std::string ending = path.extension().string();
  std::ranges::transform(ending, ending.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return ending == ".jpg" || ending == ".jpeg" || ending == ".png";
}

/// Names in a folder for which `keep` holds, sorted by bytes; hidden ones are left out.
template <class Keep>
std::vector<std::string> list(const fs::path& folder, Keep keep) {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name[0] != '.' && keep(entry)) names.push_back(name);
  }
  std::ranges::sort(names);
  return names;
}

std::vector<std::string> subfolders(const fs::path& folder) {
  return list(folder, [](const fs::directory_entry& e) { return e.is_directory(); });
}

std::vector<std::string> pictures(const fs::path& folder) {
  return list(folder,
              [](const fs::directory_entry& e) { return e.is_regular_file() && is_picture(e.path()); });
}

std::vector<std::vector<std::string>> read_table(const fs::path& path) {
  const Bytes bytes = read_file(path.string(), 64 << 20);
  std::istringstream lines(std::string(bytes.begin(), bytes.end()));
  std::vector<std::vector<std::string>> rows;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    std::istringstream cells(line);
    rows.emplace_back();
    for (std::string cell; std::getline(cells, cell, '\t');) rows.back().push_back(cell);
  }
  return rows;
}

/// A file that a table names must lie in the folder of the table.
std::string inside(const fs::path& folder, const std::string& name, const fs::path& table) {
  if (name.empty() || name[0] == '.' || name.find('/') != std::string::npos)
    throw format_error(table.string(), 0, "got the file name \"" + name + "\", expected a plain name");
  return (folder / name).string();
}

Files by_class(const fs::path& root) {
  Files files;
  std::map<std::string, std::string> lower_case;
  for (const std::string& name : subfolders(root)) {
    fs::path folder = root / name;
    if (fs::is_directory(folder / "images")) folder /= "images";
    const std::vector<std::string> names = pictures(folder);
    if (names.empty())
      throw unavailable_error("[data] class " + folder.string() + " has no pictures; " + advice);
    std::string key = name;
    std::ranges::transform(key, key.begin(),
                           [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (const auto [other, fresh] = lower_case.emplace(key, name); !fresh)
      throw format_error(
          root.string(), 0,
          "the classes " + other->second + " and " + name + " differ by case only; rename one");
    for (const std::string& picture : names) {
      files.paths.push_back((folder / picture).string());
      files.labels.push_back(static_cast<int32_t>(files.class_names.size()));
    }
    files.class_names.push_back(name);
  }
  return files;
}

/// Tiny-ImageNet's validation part: a table of file, class, box; the classes are those of the training part.
Files by_annotations(const fs::path& root, const fs::path& train) {
  Files files;
  files.class_names = subfolders(train);
  const fs::path table = root / "val_annotations.txt";
  for (const std::vector<std::string>& row : read_table(table)) {
    if (row.size() < 2)
      throw format_error(table.string(), 0, "a row has no class; expected file, tab, class");
    const auto found = std::ranges::lower_bound(files.class_names, row[1]);
    if (found == files.class_names.end() || *found != row[1])
      throw format_error(table.string(), 0, "the class " + row[1] + " has no folder in " + train.string());
    files.paths.push_back(inside(root / "images", row[0], table));
    files.labels.push_back(static_cast<int32_t>(found - files.class_names.begin()));
  }
  return files;
}

/// A table with the header file, class[, ..., name, ...]; classes are numbers.
Files by_table(const fs::path& root) {
  constexpr int max_classes = 100'000;
  const fs::path table = root / "labels.tsv";
  const auto rows = read_table(table);
  const auto refuse = [&](size_t row, const std::string& reason) {
    throw format_error(table.string(), 0, text("line ", row + 1, ": ", reason));
  };
  if (rows.empty() || rows[0].size() < 2 || rows[0][0] != "file" || rows[0][1] != "class")
    refuse(0, "expected the columns file and class, separated by tabs");
  const auto name_column = static_cast<size_t>(std::ranges::find(rows[0], "name") - rows[0].begin());
  Files files;
  for (size_t i = 1; i < rows.size(); ++i) {
    if (rows[i].size() != rows[0].size())
      refuse(i, text("got ", rows[i].size(), " columns, expected ", rows[0].size()));
    const std::string& digits = rows[i][1];
    if (digits.empty() || digits.size() > 6 || digits.find_first_not_of("0123456789") != std::string::npos ||
        std::stoi(digits) >= max_classes)
      refuse(i, "got the class \"" + digits + "\", expected a number from 0 on");
    const auto label = static_cast<size_t>(std::stoi(digits));
    files.paths.push_back(inside(root, rows[i][0], table));
    files.labels.push_back(static_cast<int32_t>(label));
    for (size_t k = files.class_names.size(); k <= label; ++k) files.class_names.push_back(text("class ", k));
    if (name_column < rows[0].size()) files.class_names[label] = rows[i][name_column];
  }
  return files;
}

Files find_files(const fs::path& root, bool train) {
  if (!fs::is_directory(root))
    throw unavailable_error("[data] there is no folder " + root.string() + "; " + advice);
  if (fs::exists(root / "labels.tsv")) return by_table(root);
  if (!fs::is_directory(root / "train")) return by_class(root);
  if (train) return by_class(root / "train");
  for (const char* name : {"val", "test"}) {
    const fs::path part = root / name;
    if (fs::exists(part / "val_annotations.txt")) return by_annotations(part, root / "train");
    if (fs::is_directory(part)) return by_class(part);
  }
  throw unavailable_error("[data] " + root.string() + " has a folder train, but neither val nor test; " +
                          advice);
}

}  // namespace

Dataset folder(const std::string& dir, bool train) {
  check(!dir.empty(), "[data] the data set \"folder\" needs the name of a folder; pass --data DIR");
  Files files = find_files(dir, train);
  if (files.paths.empty()) throw unavailable_error("[data] " + dir + " holds no pictures; " + advice);
  Dataset dataset;
  dataset.name = "folder";
  dataset.class_names = std::move(files.class_names);
  dataset.labels = std::move(files.labels);
  dataset.image_shape = {0, 0, 3};
  dataset.image = [paths = std::move(files.paths)](int64_t i) {
    return read_image(paths.at(static_cast<size_t>(i)));
  };
  return dataset;
}

}  // namespace stairgrad::data
