#include "kernels/allocator.h"

#include <thread>

#include "../skip.h"
#include "kernel_test.h"

using namespace stairgrad;

TEST_CASE("a freed block is handed out again") {
  if (!blocks_are_cached) return skip("blocks are not cached under AddressSanitizer");
  void* first = allocate(1000);
  deallocate(first, 1000);
  const size_t reserved = memory_stats().reserved;
  void* second = allocate(1000);
  CHECK(second == first);
  CHECK(memory_stats().reserved == reserved);
  void* third = allocate(1000);
  CHECK(third != second);
  deallocate(second, 1000);
  deallocate(third, 1000);
}

TEST_CASE("sizes that are nearly equal share blocks") {
  if (!blocks_are_cached) return skip("blocks are not cached under AddressSanitizer");
  void* block = allocate(1'000'000);
  deallocate(block, 1'000'000);
  void* close = allocate(1'040'000);
  CHECK(close == block);
  deallocate(close, 1'040'000);
}

TEST_CASE("live memory and its peak are counted") {
  reset_peak();
  const size_t before = memory_stats().in_use;
  void* a = allocate(1 << 20);
  void* b = allocate(1 << 20);
  CHECK(memory_stats().in_use == before + (2 << 20));
  deallocate(a, 1 << 20);
  CHECK(memory_stats().in_use == before + (1 << 20));
  CHECK(memory_stats().peak == before + (2 << 20));
  reset_peak();
  CHECK(memory_stats().peak == before + (1 << 20));
  deallocate(b, 1 << 20);
  CHECK(memory_stats().in_use == before);
}

TEST_CASE("at most an eighth is wasted, and every block is aligned and can be written to its end") {
  for (size_t bytes = 0; bytes < 100'000'000; bytes = bytes * 3 / 2 + 17) {
    const size_t before = memory_stats().in_use;
    auto* block = static_cast<unsigned char*>(allocate(bytes));
    const size_t size = memory_stats().in_use - before;
    CHECK(reinterpret_cast<uintptr_t>(block) % 64 == 0);
    CHECK(size >= bytes);
    CHECK(size <= std::max(bytes + bytes / 8 + 1, (bytes + 63) / 64 * 64 + 64));
    if (bytes) block[0] = block[bytes - 1] = 1;
    deallocate(block, bytes);
  }
}

TEST_CASE("cached blocks go back to the system on request") {
  if (!blocks_are_cached) return skip("blocks are not cached under AddressSanitizer");
  deallocate(allocate(10 << 20), 10 << 20);
  CHECK(memory_stats().reserved >= memory_stats().in_use + (10 << 20));
  release_cached_memory();
  CHECK(memory_stats().reserved == memory_stats().in_use);
}

TEST_CASE("a request that cannot be met throws and leaves the count as it was") {
  const MemoryStats before = memory_stats();
  CHECK_THROWS_AS(allocate(size_t{1} << 60), std::bad_alloc);
  CHECK(memory_stats().in_use == before.in_use);
}

TEST_CASE("threads allocate side by side") {
  const size_t before = memory_stats().in_use;
  std::vector<std::thread> team;
  for (int t = 0; t < 4; ++t) {
    team.emplace_back([t] {
      for (int i = 0; i < 2000; ++i) {
        const size_t bytes = static_cast<size_t>(1 + (i * 37 + t * 11) % 5000);
        auto* block = static_cast<unsigned char*>(allocate(bytes));
        std::memset(block, t, bytes);
        if (block[bytes / 2] != t) std::abort();
        deallocate(block, bytes);
      }
    });
  }
  for (std::thread& thread : team) thread.join();
  CHECK(memory_stats().in_use == before);
}
