// Image folders. Three layouts are recognised:
//   DIR/train/CLASS/*.jpg and DIR/val or DIR/test likewise    ImageNet's; or DIR/CLASS/*.jpg for both splits
//   DIR/train/CLASS/images/*.JPEG, DIR/val/images/ with DIR/val/val_annotations.txt    Tiny-ImageNet's
//   DIR/labels.tsv with the columns file, class and perhaps name; the files lie beside it
// Classes are the names of sub-folders, sorted by bytes, so that no locale changes a class number; those of
// train/ number the classes of val/ and test/ too. Links that lead out of DIR are not followed; what is
// skipped is reported.
#include <algorithm>
#include <filesystem>
#include <map>

#include "../formats/image.h"
#include "../formats/labels.h"
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

/// Looks into the folder of a data set and nowhere else: links may not lead out of it.
class Explorer {
 public:
  explicit Explorer(const fs::path& root) : root_(fs::canonical(root)) {}

  /// Throws format_error for a link that leads out of the data set or nowhere.
  bool is_folder(const fs::path& path) const {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (status.type() == fs::file_type::not_found) return false;
    if (error) throw format_error(path.string(), 0, "it cannot be examined: " + error.message());
    if (status.type() != fs::file_type::directory) return false;
    if (!inside(path)) refuse_link(path);
    return true;
  }

  /// Sub-folders, sorted by bytes; hidden ones are left out.
  std::vector<std::string> subfolders(const fs::path& folder) {
    return list(folder, [this](const fs::directory_entry& e) {
      std::error_code ignored;
      return e.is_directory(ignored) && is_folder(e.path());
    });
  }
  /// JPEG and PNG files likewise.
  std::vector<std::string> pictures(const fs::path& folder) {
    return list(folder, [this](const fs::directory_entry& e) {
      std::error_code ignored;
      return is_picture(e.path()) && e.is_regular_file(ignored) &&
             (!e.is_symlink(ignored) || inside(e.path()));
    });
  }
  /// A file that a table names.
  std::string file(const fs::path& path) const {
    std::error_code ignored;
    if (fs::is_symlink(path, ignored) && !inside(path)) refuse_link(path);
    return path.string();
  }

  /// What is neither hidden nor a class or picture, or is a link that leads out or nowhere.
  const std::vector<std::string>& skipped() const { return skipped_; }

 private:
  bool inside(const fs::path& path) const {
    std::error_code error;
    const fs::path real = fs::canonical(path, error);
    return !error && std::ranges::mismatch(root_, real).in1 == root_.end();
  }
  [[noreturn]] void refuse_link(const fs::path& path) const {
    throw format_error(path.string(), 0,
                       "the link leads out of the data set " + root_.string() +
                           "; put the files there, or name the folder that holds them with --data DIR");
  }

  template <class Keep>
  std::vector<std::string> list(const fs::path& folder, Keep keep) {
    std::vector<std::string> names;
    std::error_code error;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
      const std::string name = entry->path().filename().string();
      if (name[0] == '.') continue;
      if (keep(*entry))
        names.push_back(name);
      else
        skipped_.push_back((folder / name).string());
    }
    if (error) throw format_error(folder.string(), 0, "the folder cannot be read: " + error.message());
    std::ranges::sort(names);
    return names;
  }

  fs::path root_;
  std::vector<std::string> skipped_;
};

/// A sub-folder a class. Without `classes` these are the classes; with them (those of the training part) each
/// must be one of them, so that a class has the same number in every part.
Files by_class(Explorer& explorer, const fs::path& root, std::vector<std::string> classes = {}) {
  Files files;
  std::map<std::string, std::string> lower_case;
  const std::vector<std::string> folders = explorer.subfolders(root);
  files.class_names = classes.empty() ? folders : std::move(classes);
  for (const std::string& name : folders) {
    const auto found = std::ranges::lower_bound(files.class_names, name);
    if (found == files.class_names.end() || *found != name)
      throw format_error((root / name).string(), 0,
                         "the class " + name + " has no folder among those to train on; remove or rename it");
    fs::path folder = root / name;
    if (!is_text(name))
      throw format_error(folder.string(), 0, "the name of this class is no text in UTF-8; rename the folder");
    if (explorer.is_folder(folder / "images")) folder /= "images";
    const std::vector<std::string> names = explorer.pictures(folder);
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
      files.labels.push_back(static_cast<int32_t>(found - files.class_names.begin()));
    }
  }
  return files;
}

constexpr uint64_t most_table_bytes = 64 << 20;

/// Tiny-ImageNet's validation part: a table of file, class, box.
Files by_annotations(Explorer& explorer, const fs::path& root, std::vector<std::string> classes) {
  Files files;
  files.class_names = std::move(classes);
  const std::string path = explorer.file(root / "val_annotations.txt");
  explorer.is_folder(root / "images");  // refuses a link that leads out
  for (const TableRow& row : parse_table(read_file(path, most_table_bytes), path)) {
    if (row.cells.size() < 2) row.refuse(path, "the row has no class; expected file, tab, class");
    const std::string& name = row.cells[1];
    const auto found = std::ranges::lower_bound(files.class_names, name);
    if (found == files.class_names.end() || *found != name)
      row.refuse(path, "the class " + name + " has no folder among those to train on");
    files.paths.push_back(explorer.file(root / "images" / row.file(path)));
    files.labels.push_back(static_cast<int32_t>(found - files.class_names.begin()));
  }
  return files;
}

Files by_table(const Explorer& explorer, const fs::path& root) {
  const std::string path = explorer.file(root / "labels.tsv");
  LabelTable table = parse_labels(read_file(path, most_table_bytes), path);
  for (std::string& file : table.files) file = explorer.file(root / file);
  return {std::move(table.files), std::move(table.labels), std::move(table.class_names)};
}

Files find_files(Explorer& explorer, const fs::path& root, bool train) {
  std::error_code ignored;
  if (fs::exists(root / "labels.tsv", ignored)) return by_table(explorer, root);
  if (!explorer.is_folder(root / "train")) return by_class(explorer, root);
  if (train) return by_class(explorer, root / "train");
  for (const char* name : {"val", "test"}) {
    const fs::path part = root / name;
    if (!explorer.is_folder(part)) continue;
    std::vector<std::string> classes = explorer.subfolders(root / "train");
    if (classes.empty())
      throw unavailable_error("[data] " + (root / "train").string() + " has no classes; " + advice);
    return fs::exists(part / "val_annotations.txt", ignored)
               ? by_annotations(explorer, part, std::move(classes))
               : by_class(explorer, part, std::move(classes));
  }
  throw unavailable_error("[data] " + root.string() + " has a folder train, but neither val nor test; " +
                          advice);
}

/// One line about what is skipped: how many, and the first few in order.
void report_skipped(const std::string& dir, std::vector<std::string> skipped) {
  constexpr size_t shown = 10;
  if (skipped.empty()) return;
  std::ranges::sort(skipped);
  std::string list;
  for (size_t i = 0; i < std::min(shown, skipped.size()); ++i) list += (i > 0 ? ", " : "") + skipped[i];
  warn_once(text("[data] ", dir, ": ", skipped.size(),
                 " entries are no pictures of this data set and skipped: ", list,
                 skipped.size() > shown ? ", ..." : ""));
}

}  // namespace

Dataset folder(const std::string& dir, bool train) {
  check(!dir.empty(), "[data] the data set \"folder\" needs the name of a folder; pass --data DIR");
  if (std::error_code ignored; !fs::is_directory(dir, ignored))
    throw unavailable_error("[data] there is no folder " + dir + "; " + advice);
  Explorer explorer(dir);
  Files files = find_files(explorer, dir, train);
  report_skipped(dir, explorer.skipped());
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
