#include "threads.h"

#include <algorithm>
#include <thread>

#include "error.h"

// libgomp's own entry points instead of pragmas: clang's OpenMP would bring a second runtime (libomp) and
// with it a second pool of threads beside the one of oneDNN.
extern "C" {
void GOMP_parallel(void (*body)(void*), void* context, unsigned threads, unsigned flags);
int omp_get_max_threads();
int omp_get_num_threads();
int omp_get_thread_num();
int omp_in_parallel();
void omp_set_num_threads(int);
void openblas_set_num_threads(int);
}

namespace stairgrad {
namespace {
/// Tells the processor that this is a loop that waits.
void pause() {
#ifdef __x86_64__
  __builtin_ia32_pause();
#endif
}

// libgomp keeps the number for each thread, so that one must learn what another has set.
std::atomic<int> wanted = 0;         // by set_threads(); 0 before its first call
thread_local int learned = 0;        // of `wanted`
thread_local int serial_scopes = 0;  // that are open
}  // namespace

int threads() {
  const int count = wanted.load(std::memory_order_relaxed);
  if (count != learned && serial_scopes == 0) omp_set_num_threads(learned = count);
  return omp_get_max_threads();
}

void set_threads(int count) {
  check(count >= 1, "[threads] got ", count, ", expected at least 1");
  wanted = count;
  threads();
  openblas_set_num_threads(count);
}

SerialScope::SerialScope() : before_(threads()) {
  ++serial_scopes;
  omp_set_num_threads(1);
}
SerialScope::~SerialScope() {
  --serial_scopes;
  omp_set_num_threads(before_);
}

namespace detail {

namespace {
struct Range {
  int64_t n, grain;
  RangeBody body;
  const void* context;
};

void run_share(void* pointer) {
  const Range& range = *static_cast<const Range*>(pointer);
  const int64_t pieces = (range.n + range.grain - 1) / range.grain;
  const int64_t team = omp_get_num_threads(), rank = omp_get_thread_num();
  const int64_t begin = pieces * rank / team * range.grain;
  const int64_t end = std::min(range.n, pieces * (rank + 1) / team * range.grain);
  if (begin < end) range.body(range.context, begin, end);
}
struct Team {
  RangeBody body;
  const void* context;
};

void run_member(void* pointer) {
  const Team& team = *static_cast<const Team*>(pointer);
  team.body(team.context, omp_get_thread_num(), omp_get_num_threads());
}
}  // namespace

void parallel_team(int count, RangeBody body, const void* context) {
  if (count <= 1 || omp_in_parallel()) return body(context, 0, 1);
  Team team{body, context};
  GOMP_parallel(run_member, &team, static_cast<unsigned>(count), 0);
}

void parallel_range(int64_t n, int64_t grain, RangeBody body, const void* context) {
  if (n <= 0) return;
  const int64_t pieces = (n + grain - 1) / grain;
  const int team = static_cast<int>(std::min<int64_t>(pieces, threads()));
  if (team <= 1 || omp_in_parallel()) return body(context, 0, n);
  Range range{n, grain, body, context};
  GOMP_parallel(run_share, &range, static_cast<unsigned>(team), 0);
}

}  // namespace detail

void TeamSteps::reset() {
  for (auto& part : begun_) part.store(false, std::memory_order_relaxed);
  for (auto& count : done_) count.store(0, std::memory_order_relaxed);
}

void TeamSteps::wait(int64_t step) const {
  constexpr int patience = 2000;
  const std::atomic<int>& done = done_[static_cast<size_t>(step)];
  for (int spins = 0; done.load(std::memory_order_acquire) < parts_; ++spins) {
    if (spins > patience)
      std::this_thread::yield();
    else
      pause();
  }
}
}  // namespace stairgrad
