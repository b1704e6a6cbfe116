// Makes a table of results: runs what is missing, survives being killed at any moment, and renders Markdown.
//
//     build/examples/table quant/results/qat_cifar10.json
//
// A table's file names a program, its options, rows and seeds. The result.json of each run that has ended is
// kept in the folder of the same name beside the file; a run whose result is there is not run again. Delete a
// result to repeat it. examples/README.md says what the file may hold.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <set>

#include "../data/formats/json_fields.h"
#include "../kernels/threads.h"
#include "common/children.h"
#include "common/interrupt.h"
#include "common/machine.h"
#include "common/options.h"
#include "common/progress.h"
#include "common/statistics.h"
#include "common/table.h"

using namespace stairgrad;
using namespace stairgrad::examples;
using data::Json;
using data::JsonFields;
namespace fs = std::filesystem;

namespace {

struct Settings {
  std::string spec, out = "out/table", only;
  int jobs = 1;
  bool render = false, list = false;

  void parse(int argc, char** argv) {
    Options options("table", "Runs the rows of a results table that are missing, and renders it as Markdown.",
                    {"table quant/results/qat_cifar10.json", "table quant/results/qat_cifar10.json --list",
                     "table quant/results/qat_cifar10.json --jobs 2 --only 2/2"});
    std::vector<std::string> words;
    options.add_words("SPEC", words, "the table's file");
    options.add("--out", out, "folder in which the runs work; what they leave there lets them resume");
    options.add("--only", only, "run only rows whose name contains this");
    options.add("--jobs", jobs, "runs side by side, each with its share of the threads").between(1, 64);
    options.add("--render", render, "run nothing, render what there is");
    options.add("--list", list, "run nothing, list the runs and which of them are done");
    options.parse(argc, argv);
    check(words.size() == 1, "got ", words.size(), " files, expected one: the table's SPEC.json");
    spec = words[0];
  }
};

using Pairs = std::vector<std::pair<std::string, std::string>>;

/// Option names and values as words of a command line.
Pairs options_of(const Json& object, const std::string& path) {
  Pairs options;
  for (const auto& [name, value] : object.items()) {
    if (value.is_structured() || value.is_null())
      throw format_error(path, 0,
                         "option " + name + ": got " + value.dump() + ", expected a word, a number or true");
    options.emplace_back(name, value.is_string() ? value.get<std::string>() : value.dump());
  }
  return options;
}

struct Row {
  std::string name;
  Pairs options;
  std::vector<int64_t> seeds;
};
struct Figure {
  std::string name, field;
  int digits;
  bool least;  // over the seeds, not the mean
};
struct Difference {
  std::string of, minus;
  Figure figure;
};

/// "2/2, dsq learned" as a file name: "2-2_dsq_learned".
std::string as_file_name(const std::string& name) {
  std::string result;
  for (const char c : name) {
    if (c == '/')
      result += '-';
    else if (std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-')
      result += c;
    else if (!result.empty() && result.back() != '_')
      result += '_';
  }
  return result;
}

/// What SPEC.json says.
struct Spec {
  std::string path, title, program, note;
  std::vector<std::string> keep;  // files of a run that are kept beside its result
  std::vector<Row> rows;
  std::vector<Figure> figures;
  std::vector<Difference> differences;

  explicit Spec(const std::string& file) : path(file) {
    const Json root = data::read_json(file);
    const JsonFields f(root, path, "table");
    title = f.string("title");
    program = f.string("program");
    if (f.has("note")) note = f.string("note");
    if (f.has("keep")) keep = f.strings("keep");
    const Pairs common = f.has("options") ? options_of(f.object("options"), path) : Pairs();
    for (const Json& item : f.list("figures")) {
      const JsonFields figure(item, path, "figure");
      figures.push_back({figure.string("name"), figure.string("field"),
                         figure.has("digits") ? static_cast<int>(figure.integer("digits", 0, 9)) : 2,
                         figure.has("least") && figure.boolean("least")});
      figure.no_others();
    }
    for (const Json& item : f.list("rows")) rows.push_back(parse_row(item, common));
    if (f.has("differences"))
      for (const Json& item : f.list("differences")) {
        const JsonFields difference(item, path, "difference");
        differences.push_back({difference.string("of"), difference.string("minus"),
                               difference.has("figure") ? figure(difference.string("figure")) : figures[0]});
        difference.no_others();
        row(differences.back().of);
        row(differences.back().minus);
      }
    f.no_others();
  }

  const Row& row(const std::string& name) const {
    const auto found = std::ranges::find(rows, name, &Row::name);
    if (found == rows.end()) throw format_error(path, 0, "there is no row \"" + name + "\" to compare");
    return *found;
  }

  const Figure& figure(const std::string& name) const {
    const auto found = std::ranges::find(figures, name, &Figure::name);
    if (found == figures.end()) throw format_error(path, 0, "there is no figure \"" + name + "\" to compare");
    return *found;
  }

  /// Where the result of a run is kept.
  std::string result(const Row& row, int64_t seed) const {
    return fs::path(path).replace_extension().string() + "/" + run_name(row, seed) + ".json";
  }
  static std::string run_name(const Row& row, int64_t seed) {
    return text(as_file_name(row.name), "-seed", seed);
  }

 private:
  Row parse_row(const Json& item, const Pairs& common) const {
    const JsonFields f(item, path, "row");
    Row row{f.string("name"), common, f.integers("seeds", 1, 1000, 0, INT32_MAX)};
    if (f.has("options"))
      for (const auto& own : options_of(f.object("options"), path)) {
        const auto same = std::ranges::find(row.options, own.first, &Pairs::value_type::first);
        if (same == row.options.end())
          row.options.push_back(own);
        else
          same->second = own.second;
      }
    f.no_others();
    for (const Row& other : rows)
      if (as_file_name(other.name) == as_file_name(row.name))
        throw format_error(path, 0,
                           "the rows \"" + other.name + "\" and \"" + row.name + "\" share a file name");
    return row;
  }
};

/// Words of a command line: --name value; true is a flag that is given and false one that is not.
std::vector<std::string> words_of(const Pairs& options) {
  std::vector<std::string> words;
  for (const auto& [name, value] : options) {
    if (value == "false") continue;
    words.push_back("--" + name);
    if (value != "true") words.push_back(value);
  }
  return words;
}

std::string joined(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) line += (line.empty() ? "" : " ") + word;
  return line;
}

/// What a row asks for, in whatever order its file says it.
std::string asked(const Row& row) {
  Pairs options = row.options;
  std::ranges::sort(options);
  return joined(words_of(options));
}

std::string content_of(const std::string& path) {
  const data::Bytes bytes = data::read_file(path, 64 << 20);
  return {bytes.begin(), bytes.end()};
}

/// The number that a word is; NaN, which equals nothing, if it is none.
double number_in(const std::string& word) {
  char* end = nullptr;
  const double number = std::strtod(word.c_str(), &end);
  return end == word.c_str() + word.size() && !word.empty() ? number : NAN;
}

struct Run {
  const Row* row;
  int64_t seed;
};

class TableOfResults {
 public:
  explicit TableOfResults(Settings settings) : s_(std::move(settings)), spec_(s_.spec) {
    for (const Row& row : spec_.rows)
      for (const int64_t seed : row.seeds)
        if (done(row, seed)) check_options(row, seed);
  }

  int go() {
    if (s_.list) {
      list();
      return 0;
    }
    const int failed = s_.render ? 0 : run_missing();
    const std::string markdown = render();
    data::atomic_write(fs::path(spec_.path).replace_extension(".md").string(), markdown);
    std::cout << "\n" << markdown;
    return failed ? 1 : 0;
  }

 private:
  bool done(const Row& row, int64_t seed) const { return fs::exists(spec_.result(row, seed)); }
  Value result(const Row& row, int64_t seed) const {
    return Value::parse(content_of(spec_.result(row, seed)));
  }

  // A result that other options made would be taken for this row's.
  void check_options(const Row& row, int64_t seed) const {
    const Value kept = result(row, seed);
    if (const Value* made = kept.find("asked"); made && made->json() != Value(asked(row)).json())
      throw format_error(spec_.result(row, seed), 0,
                         text("it was made with ", made->json(), ", but ", spec_.path, " says \"", asked(row),
                              "\"; delete it to run the row again"));
    for (const auto& [name, value] : row.options) {
      const Value* used = kept.find("options." + name);
      const std::string got = used ? used->json() : "nothing";
      const bool same =
          got == value || got == text('"', value, '"') || (used && used->number() == number_in(value));
      if (!same)
        throw format_error(spec_.result(row, seed), 0,
                           text("it was made with --", name, ' ', got, ", but ", spec_.path, " says ", value,
                                "; delete it to run the row again"));
    }
  }

  // First seeds of all rows first: half a table is worth more than half its rows.
  std::vector<Run> missing() const {
    std::vector<Run> runs;
    size_t most = 0;
    for (const Row& row : spec_.rows) most = std::max(most, row.seeds.size());
    for (size_t i = 0; i < most; ++i)
      for (const Row& row : spec_.rows)
        if (i < row.seeds.size() && !done(row, row.seeds[i]) && row.name.find(s_.only) != std::string::npos)
          runs.push_back({&row, row.seeds[i]});
    return runs;
  }

  void list() const {
    for (const Row& row : spec_.rows)
      for (const int64_t seed : row.seeds)
        std::cout << (done(row, seed) ? "done     " : "missing  ") << row.name << ", seed " << seed << "\n";
  }

  int run_missing() {
    const std::vector<Run> runs = missing();
    const Interrupt interrupt;
    Children children;
    std::vector<Run> running;
    int failed = 0;
    size_t next = 0;
    const auto finish_one = [&] {
      const Children::Ended ended = children.wait(interrupt);
      const Run run = running[ended.index];
      failed += !keep(run, ended.code);
    };
    while (next < runs.size() && !interrupt.requested()) {
      if (children.running() == s_.jobs) {
        finish_one();
        continue;
      }
      std::cout << "[" << next + 1 << "/" << runs.size() << "] " << runs[next].row->name << ", seed "
                << runs[next].seed << std::endl;
      running.push_back(runs[next]);
      start(runs[next], children);
      ++next;
    }
    while (children.running() > 0) finish_one();
    interrupt.stop_here();
    return failed;
  }

  std::string work_folder(const Run& run) const {
    return s_.out + "/" + fs::path(spec_.path).stem().string() + "/" + Spec::run_name(*run.row, run.seed);
  }
  // Resumes what the same options began, and nothing else: neither a run that ended, nor one of other
  // options.
  void start(const Run& run, Children& children) const {
    const std::string folder = work_folder(run), begun = folder + ".begun", wanted = asked(*run.row) + "\n";
    std::vector<std::string> words = command(run);
    fs::create_directories(fs::path(folder).parent_path());
    if (fs::exists(begun) && content_of(begun) == wanted)
      words.push_back("--resume");
    else
      data::atomic_write(begun, wanted);
    children.start(words, folder + ".log");
  }
  std::vector<std::string> command(const Run& run) const {
    const std::string program = (fs::path(this_program()).parent_path() / spec_.program).string();
    std::vector<std::string> words = {program};
    const std::vector<std::string> options = words_of(run.row->options);
    words.insert(words.end(), options.begin(), options.end());
    const int threads = std::max(1, stairgrad::threads() / s_.jobs);
    for (const std::string& word : {std::string("--seed"), text(run.seed), std::string("--out"),
                                    work_folder(run), std::string("--threads"), text(threads)})
      words.push_back(word);
    return words;
  }

  // Keeps the result of a run that ended, without the folders of this machine, and the files that the table
  // asks for: policy.json of "gmpq" becomes gmpq-seed0.policy.json.
  bool keep(const Run& run, int code) const {
    const std::string folder = work_folder(run), name = text(run.row->name, ", seed ", run.seed);
    if (code != 0 || !fs::exists(folder + "/result.json")) {
      std::cout << name << " ended with exit code " << code << (code == 0 ? " but without a result.json" : "")
                << "; see " << folder << ".log" << std::endl;
      return false;
    }
    Value result = Value::parse(content_of(folder + "/result.json"));
    result.set("asked", asked(*run.row));
    result.set("options.out", "");
    if (const Value* place = result.find("options.data"); place && place->json().starts_with("\"/"))
      result.set("options.data", "");
    const std::string path = spec_.result(*run.row, run.seed);
    fs::create_directories(fs::path(path).parent_path());
    for (const std::string& file : spec_.keep)
      if (fs::exists(folder + "/" + file))
        data::atomic_write(fs::path(path).replace_extension(file).string(), content_of(folder + "/" + file));
    data::atomic_write(path, result.json(2) + "\n");
    fs::remove(folder + ".begun");
    std::cout << name << ": ";
    for (const Figure& f : spec_.figures) {
      const Value* figure = result.find(f.field);
      std::cout << f.name << ' ' << fixed(figure ? figure->number() : NAN, f.digits) << "  ";
    }
    std::cout << std::endl;
    return true;
  }

  // Figures of a row by seed; only of seeds that are done and have it.
  std::vector<std::pair<int64_t, double>> values(const Row& row, const Figure& figure) const {
    std::vector<std::pair<int64_t, double>> all;
    for (const int64_t seed : row.seeds) {
      if (!done(row, seed)) continue;
      const Value run = result(row, seed);
      if (const Value* value = run.find(figure.field); value && !std::isnan(value->number()))
        all.emplace_back(seed, value->number());
    }
    return all;
  }

  std::string cell(const Row& row, const Figure& figure) const {
    std::vector<double> x;
    for (const auto& [seed, value] : values(row, figure)) x.push_back(value);
    if (x.empty()) return "";
    if (figure.least) return fixed(*std::ranges::min_element(x), figure.digits);
    if (x.size() == 1) return fixed(x[0], figure.digits);
    return text(fixed(mean(x), figure.digits), " ± ", fixed(deviation(x), figure.digits));
  }

  std::string difference(const Difference& d) const {
    const Figure& figure = d.figure;
    std::vector<double> differences;
    for (const auto& [seed, value] : values(spec_.row(d.of), figure))
      for (const auto& [other_seed, other] : values(spec_.row(d.minus), figure))
        if (seed == other_seed) differences.push_back(value - other);
    const std::string pair =
        text("| ", d.of, " − ", d.minus, " | ", figure.name, " | ", differences.size(), " | ");
    if (differences.size() < 2)
      return pair + (differences.empty() ? "" : fixed(differences[0], figure.digits)) + " | |\n";
    const Interval interval = mean_interval(differences);
    return text(pair, fixed(mean(differences), figure.digits), " | ", fixed(interval.low, figure.digits),
                " to ", fixed(interval.high, figure.digits), " |\n");
  }

  // " --threads 1" if all runs had one; sums are rounded in another order with other numbers of threads.
  std::string threads_used() const {
    std::set<double> all;
    for (const Row& row : spec_.rows)
      for (const auto& [seed, threads] : values(row, {"threads", "cpu.threads", 0, false}))
        all.insert(threads);
    return all.size() == 1 ? text(" --threads ", *all.begin()) : "";
  }

  std::string render() const {
    std::string md = text("### ", spec_.title, "\n\n");
    if (!spec_.note.empty()) md += spec_.note + "\n\n";
    md += "| | seeds |";
    for (const Figure& f : spec_.figures) md += text(' ', f.name, " |");
    md += "\n|---|---|";
    for (size_t i = 0; i < spec_.figures.size(); ++i) md += "---|";
    md += "\n";
    for (const Row& row : spec_.rows) {
      const auto runs = std::ranges::count_if(row.seeds, [&](int64_t seed) { return done(row, seed); });
      md += text("| ", row.name, " | ", runs, " of ", row.seeds.size(), " |");
      for (const Figure& f : spec_.figures) md += text(' ', cell(row, f), " |");
      md += "\n";
    }
    md += "\nMean ± standard deviation over the seeds; a single figure is one run.\n";
    if (!spec_.differences.empty()) {
      md += "\n| difference, paired by seed | of | pairs | mean | 95 % interval |\n|---|---|---|---|---|\n";
      for (const Difference& d : spec_.differences) md += difference(d);
    }
    md += text("\nTo repeat a row, add `--seed N", threads_used(), "` to its command:\n\n");
    for (const Row& row : spec_.rows)
      md += text("- ", row.name, ": `build/examples/", spec_.program, ' ', joined(words_of(row.options)),
                 "`\n");
    return md;
  }

  Settings s_;
  Spec spec_;
};

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Settings settings;
    settings.parse(argc, argv);
    return TableOfResults(std::move(settings)).go();
  });
}
