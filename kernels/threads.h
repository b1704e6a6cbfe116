// One pool of threads for the whole process: libgomp's, which oneDNN and OpenBLAS use as well.
#pragma once

#include <cstdint>
#include <type_traits>

namespace stairgrad {

/// Threads that parallel regions use; at first OMP_NUM_THREADS or the number of cores.
int threads();
/// Sets the number of threads of stairgrad, oneDNN and OpenBLAS. Throws argument_error below 1.
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
}  // namespace detail

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
