// The folder that a run writes to: metrics.jsonl while it goes, result.json at its end, and whatever else it
// makes.
#pragma once

#include <string>
#include <vector>

#include "value.h"

namespace stairgrad::examples {

/// Owns --out. Files appear whole or not at all; a result.json is always that of the last run that ended
/// well.
class RunDirectory {
 public:
  /// Creates the folder and proves that it can be written to, before any work is done. A run that does not
  /// `resume` starts with no metrics, checkpoints, result and report. Throws unavailable_error when the
  /// folder cannot be made or written, or another run writes to it.
  RunDirectory(std::string path, bool resume);
  ~RunDirectory();
  RunDirectory(const RunDirectory&) = delete;
  RunDirectory& operator=(const RunDirectory&) = delete;

  const std::string& path() const { return path_; }
  /// The path of a file in the folder.
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  bool has(const std::string& name) const;

  /// Appends a line to metrics.jsonl.
  void metrics(const Value& line);
  void metrics(const Fields& fields);
  /// After a resume: forgets the lines of a phase whose epoch is above `last`, which the checkpoint does not
  /// know.
  void forget_metrics_after(const std::string& phase, int64_t last);
  /// What metrics.jsonl holds.
  const std::vector<Value>& lines() const { return lines_; }
  /// The values of two fields over all lines that have both: a curve.
  struct Series {
    std::vector<double> x, y;
  };
  Series series(const std::string& x, const std::string& y) const;

  /// What result.json will hold: result().set("accuracy.float", 91.7).
  Value& result() { return result_; }
  /// Sets the keys that every program has: program, options, versions, cpu, seed.
  void describe(const std::string& program, const Value& options, uint64_t seed);
  /// Notes the time of a phase, in result.json as seconds.PHASE.
  void seconds(const std::string& phase, double seconds) { result_.set("seconds." + phase, seconds); }
  /// Writes result.json.
  void finish() const;

 private:
  /// Makes the folder.
  explicit RunDirectory(std::string path);
  void take_lock(int tries) const;
  void rewrite_metrics() const;
  void remove_all_with(const char* extension) const;

  std::string path_;
  int lock_ = -1;  // held while the run lasts: two runs would mix their files
  std::vector<Value> lines_;
  Value result_ = Value::Group{};
};

}  // namespace stairgrad::examples
