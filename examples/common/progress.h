// How far a program is: a bar with images/s and time left on a terminal, a plain line every few seconds
// elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace stairgrad::examples {

/// Seconds since construction.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

/// Progress of one phase, over all of its items.
class Progress {
 public:
  /// `phase`: "training"; `total`: items in the whole phase, those of an earlier run (`done`) included.
  Progress(std::string phase, int64_t total, std::string unit = "images", int64_t done = 0);
  /// Ends the line of the bar.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `items` more are done; `note` ("loss 0.31") is shown until the next one.
  void advance(int64_t items, const std::string& note = {});
  /// The program waited for its data so long. Says so when that is much of the time.
  void waited(double seconds) { waited_ += seconds; }
  /// A line of its own: the result of an epoch.
  void line(const std::string& text);

  double seconds() const { return watch_.seconds(); }
  double items_per_second() const;

 private:
  void show();

  std::string phase_, unit_, note_;
  int64_t total_, done_, first_;
  double waited_ = 0, shown_ = 0;
  bool bar_, open_ = false;
  Stopwatch watch_;
};

}  // namespace stairgrad::examples
