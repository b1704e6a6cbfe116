#include "kernels/threads.h"

#include <atomic>
#include <thread>

#include "kernel_test.h"

using namespace stairgrad;

TEST_CASE("parallel_for covers the range once, in pieces that begin at multiples of the grain") {
  const int before = threads();
  for (const int count : {1, 2, 3, 7}) {
    set_threads(count);
    CHECK(threads() == count);
    for (const int64_t n : {0, 1, 5, 64, 65, 1000}) {
      for (const int64_t grain : {1, 7, 64, 5000}) {
        std::vector<std::atomic<int>> visits(static_cast<size_t>(n));
        std::atomic<int> pieces{0}, misplaced{0};
        parallel_for(n, grain, [&](int64_t begin, int64_t end) {
          ++pieces;
          misplaced += begin % grain != 0 || begin >= end;
          for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
        });
        for (const auto& visit : visits) CHECK(visit == 1);
        CHECK(misplaced == 0);
        CHECK(pieces <= count);
        if (n > 0 && n <= grain) CHECK(pieces == 1);
        if (n == 0) CHECK(pieces == 0);
      }
    }
  }
  set_threads(before);
}

TEST_CASE("a parallel region inside another runs in its thread") {
  const int before = threads();
  set_threads(2);
  std::atomic<int64_t> sum{0};
  parallel_for(4, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      parallel_for(100, 1, [&](int64_t b, int64_t e) {
        CHECK((b == 0 && e == 100));
        sum += e - b;
      });
  });
  CHECK(sum == 400);
  set_threads(before);
}

TEST_CASE("the number of threads is that of the process, whichever thread sets it or asks") {
  const int before = threads();
  const auto elsewhere = [](auto body) { std::thread(body).join(); };
  for (const int count : {1, 3}) {
    set_threads(count);
    elsewhere([=] {
      CHECK(threads() == count);
      std::atomic<int> pieces{0};
      parallel_for(64, 1, [&](int64_t, int64_t) { ++pieces; });
      CHECK(pieces == count);
    });
  }
  elsewhere([] { set_threads(2); });
  CHECK(threads() == 2);
  {
    const SerialScope serial;
    elsewhere([] { set_threads(3); });
    CHECK(threads() == 1);
  }
  CHECK(threads() == 3);
  set_threads(before);
}

TEST_CASE("the number of threads is at least one") {
  CHECK_THROWS_AS(set_threads(0), argument_error);
  CHECK_THROWS_AS(set_threads(-1), argument_error);
}
