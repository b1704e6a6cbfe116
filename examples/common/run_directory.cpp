#include "run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "../../data/formats/file.h"
#include "machine.h"

namespace stairgrad::examples {

namespace fs = std::filesystem;

RunDirectory::RunDirectory(std::string path) : path_(std::move(path)) {
  check(!path_.empty(), "--out: got an empty word, expected a folder");
  std::error_code error;
  fs::create_directories(path_, error);
  if (error || !fs::is_directory(path_)) {
    throw unavailable_error(text("--out ", path_, ": the folder cannot be made (",
                                 error ? error.message() : "there is a file of that name", ")"));
  }
  lock_ = ::open(file(".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0)
    throw unavailable_error(
        text("--out ", path_, ": the folder cannot be written to (", std::strerror(errno), ")"));
}

void RunDirectory::take_lock(int tries) const {
  while (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    if (--tries <= 0)
      throw unavailable_error(text(
          "--out ", path_, ": another run is writing there; wait for it, stop it, or name another folder"));
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

// The object is complete from here on, so that the destructor gives the lock back whatever fails.
RunDirectory::RunDirectory(std::string path, bool resume) : RunDirectory(std::move(path)) {
  take_lock(resume ? 100 : 1);  // a run to be resumed may still be writing its last checkpoint
  fs::remove(file("result.json"));
  fs::remove(file("report.html"));
  // A run that was killed while it wrote left these; under the lock no other run is writing.
  remove_all_with(".part");
  if (!resume) {
    fs::remove(file("metrics.jsonl"));
    remove_all_with(".ckpt");
    return;
  }
  std::ifstream metrics(file("metrics.jsonl"));
  for (std::string line; std::getline(metrics, line);) {
    try {
      lines_.push_back(Value::parse(line));
    } catch (const argument_error&) {
      break;  // the line that was being written when the run was killed
    }
  }
  if (has("metrics.jsonl")) rewrite_metrics();
}

RunDirectory::~RunDirectory() { ::close(lock_); }

void RunDirectory::remove_all_with(const char* extension) const {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(path_))
    if (entry.path().extension() == extension) found.push_back(entry.path());
  for (const fs::path& path : found) fs::remove(path);
}

bool RunDirectory::has(const std::string& name) const { return fs::exists(file(name)); }

void RunDirectory::metrics(const Fields& fields) {
  Value line = Value::Group{};
  for (const auto& [name, value] : fields) line.set(name, value);
  metrics(line);
}

void RunDirectory::metrics(const Value& line) {
  std::ofstream out(file("metrics.jsonl"), std::ios::app);
  out << line.json() + "\n" << std::flush;
  if (!out) throw unavailable_error(text(file("metrics.jsonl"), ": writing failed; is the disk full?"));
  lines_.push_back(line);
}

void RunDirectory::forget_metrics_after(const std::string& phase, int64_t last) {
  std::erase_if(lines_, [&](const Value& line) {
    const Value *own = line.find("phase"), *epoch = line.find("epoch");
    return own && own->json() == Value(phase).json() && epoch && epoch->number() > static_cast<double>(last);
  });
  rewrite_metrics();
}

void RunDirectory::rewrite_metrics() const {
  std::string all;
  for (const Value& line : lines_) all += line.json() + "\n";
  data::atomic_write(file("metrics.jsonl"), all);
}

RunDirectory::Series RunDirectory::series(const std::string& x, const std::string& y) const {
  Series series;
  for (const Value& line : lines_) {
    const Value *at_x = line.find(x), *at_y = line.find(y);
    if (!at_x || !at_y || std::isnan(at_x->number()) || std::isnan(at_y->number())) continue;
    series.x.push_back(at_x->number());
    series.y.push_back(at_y->number());
  }
  return series;
}

void RunDirectory::describe(const std::string& program, const Value& options, uint64_t seed) {
  const Machine machine = this_machine();
  result_.set("program", program);
  result_.set("options", options);
  result_.set("versions", machine.versions());
  result_.set("cpu", machine.cpu_value());
  result_.set("seed", seed);
}

void RunDirectory::finish() const { data::atomic_write(file("result.json"), result_.json(2) + "\n"); }

}  // namespace stairgrad::examples
