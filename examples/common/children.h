// Other programs, run side by side.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "interrupt.h"

namespace stairgrad::examples {

/// Programs that were started and are waited for. Ctrl-C does not reach them by itself; those that still run
/// at the end are asked to stop, and waited for.
class Children {
 public:
  Children() = default;
  ~Children();
  Children(const Children&) = delete;
  Children& operator=(const Children&) = delete;

  /// Starts words[0] with the arguments words[1] ..., its output going to the end of the file `log`. Throws
  /// unavailable_error when it cannot be started.
  void start(const std::vector<std::string>& words, const std::string& log);
  int running() const { return running_; }

  struct Ended {
    size_t index;  ///< counts calls of start() from 0
    int code;      ///< exit code, or 128 + the signal that ended it
  };
  /// Waits until one ends. When a stop is asked for, the children are asked to stop, once.
  Ended wait(const Interrupt& interrupt);

 private:
  void ask_to_stop();
  /// One that has ended, if there is one; `options` of waitpid().
  std::optional<Ended> reap(int options);

  std::vector<int> processes_;  // 0 once ended
  int running_ = 0;
  bool asked_ = false;
};

}  // namespace stairgrad::examples
