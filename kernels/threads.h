// One pool of threads for the whole process: libgomp's, which oneDNN and OpenBLAS use as well.
#pragma once

#include <atomic>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace stairgrad {

/// Threads that parallel regions use; at first OMP_NUM_THREADS or the number of cores.
int threads();
/// Sets them for stairgrad, oneDNN and OpenBLAS, whichever thread calls them. Throws argument_error below 1.
void set_threads(int count);

/// While it lives, what the calling thread opens runs in one thread: its own.
class SerialScope {
 public:
  SerialScope();
  ~SerialScope();
  SerialScope(const SerialScope&) = delete;
  SerialScope& operator=(const SerialScope&) = delete;

 private:
  int before_;
};

namespace detail {
using RangeBody = void (*)(const void* context, int64_t begin, int64_t end);
void parallel_range(int64_t n, int64_t grain, RangeBody body, const void* context);
void parallel_team(int count, RangeBody body, const void* context);
}  // namespace detail

/// Calls body(rank, size) once on each of `size` threads side by side: `count` of them, fewer if the system
/// has no more, and one within a parallel region. Exceptions must not leave `body`.
template <class Body>
void parallel_team(int count, const Body& body) {
  detail::parallel_team(
      count,
      [](const void* context, int64_t rank, int64_t size) {
        (*static_cast<const Body*>(context))(static_cast<int>(rank), static_cast<int>(size));
      },
      &body);
}

/// Steps of microseconds that a team does one after another, each cut into as many parts. A thread does its
/// own part and then those that nobody has begun, so that one which the system keeps off its core is not
/// waited for: libgomp's regions would cost as much as the steps, and far more on a busy machine.
class TeamSteps {
 public:
  TeamSteps(int64_t steps, int parts)
      : parts_(parts), begun_(static_cast<size_t>(steps * parts)), done_(static_cast<size_t>(steps)) {}

  /// Before the team begins.
  void reset();
  /// On each thread: calls body(part) for parts of `step`, and returns when all of them are done.
  template <class Body>
  void run(int64_t step, int rank, const Body& body) {
    for (int i = 0; i < parts_; ++i) {
      const int part = (rank + i) % parts_;
      if (begun_[static_cast<size_t>(step * parts_ + part)].exchange(true, std::memory_order_relaxed))
        continue;
      body(part);
      done_[static_cast<size_t>(step)].fetch_add(1, std::memory_order_release);
    }
    wait(step);
  }

 private:
  void wait(int64_t step) const;

  int parts_;
  std::vector<std::atomic<bool>> begun_;  // by step and part
  std::vector<std::atomic<int>> done_;    // parts, by step
};

/// Calls body(begin, end) on consecutive pieces that cover [0, n), side by side. Pieces begin at multiples of
/// `grain` and with n <= grain there is one piece, in the calling thread: a parallel region costs about 5 us.
/// Exceptions must not leave `body`.
template <class Body>
void parallel_for(int64_t n, int64_t grain, const Body& body) {
  detail::parallel_range(
      n, grain, [](const void* context, int64_t b, int64_t e) { (*static_cast<const Body*>(context))(b, e); },
      &body);
}

}  // namespace stairgrad
