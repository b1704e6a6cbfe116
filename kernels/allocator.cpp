#include "allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <vector>

namespace stairgrad {
namespace {

constexpr size_t alignment = 64;

#if defined(__SANITIZE_ADDRESS__)
constexpr bool caching = false;
#elif defined(__has_feature)
constexpr bool caching = !__has_feature(address_sanitizer);
#else
constexpr bool caching = true;
#endif

// Sizes are rounded up to an eighth of their power of two, so that nearly equal shapes share blocks and at
// most 12.5 % is wasted.
size_t size_class(size_t bytes) {
  if (!caching) return std::max<size_t>(bytes, 1);
  const size_t step = std::max(alignment, std::bit_floor(std::max<size_t>(bytes, 1)) / 8);
  return (std::max<size_t>(bytes, 1) + step - 1) / step * step;
}

struct Cache {
  std::mutex mutex;
  std::map<size_t, std::vector<void*>> blocks;
  MemoryStats stats{};
};

// Never destroyed: arrays with static lifetime may be freed after it would be.
Cache& cache() {
  static Cache* instance = new Cache;
  return *instance;
}

// Large blocks lie in huge pages where the system has them: the first touch of 8 MB takes a tenth of the
// time, and streaming through it a third less.
constexpr size_t huge_page = size_t{2} << 20;

void* from_system(size_t size) {
  const bool large = size >= huge_page;
  void* block = nullptr;
  if (posix_memalign(&block, large ? huge_page : alignment, size) != 0) return nullptr;
#ifdef MADV_HUGEPAGE
  if (large) madvise(block, size, MADV_HUGEPAGE);  // advice: without it the block is as good, but slower
#endif
  return block;
}

void release(Cache& c) noexcept {
  for (auto& [size, blocks] : c.blocks) {
    for (void* block : blocks) std::free(block);
    c.stats.reserved -= size * blocks.size();
  }
  c.blocks.clear();
}

}  // namespace

const bool blocks_are_cached = caching;

void* allocate(size_t bytes) {
  const size_t size = size_class(bytes);
  Cache& c = cache();
  const std::lock_guard lock(c.mutex);
  void* block = nullptr;
  if (const auto found = c.blocks.find(size); found != c.blocks.end() && !found->second.empty()) {
    block = found->second.back();
    found->second.pop_back();
  } else {
    block = from_system(size);
    if (!block) {  // the cache may hold what is missing here
      release(c);
      block = from_system(size);
    }
    if (!block) throw std::bad_alloc();
    c.stats.reserved += size;
  }
  c.stats.in_use += size;
  c.stats.peak = std::max(c.stats.peak, c.stats.in_use);
  return block;
}

void deallocate(void* block, size_t bytes) noexcept {
  const size_t size = size_class(bytes);
  Cache& c = cache();
  const std::lock_guard lock(c.mutex);
  c.stats.in_use -= size;
  if (!caching) {
    std::free(block);
    c.stats.reserved -= size;
    return;
  }
  try {
    c.blocks[size].push_back(block);
  } catch (const std::bad_alloc&) {  // no room to remember the block: let it go
    std::free(block);
    c.stats.reserved -= size;
  }
}

MemoryStats memory_stats() {
  const std::lock_guard lock(cache().mutex);
  return cache().stats;
}

void reset_peak() {
  const std::lock_guard lock(cache().mutex);
  cache().stats.peak = cache().stats.in_use;
}

void release_cached_memory() {
  const std::lock_guard lock(cache().mutex);
  release(cache());
}

}  // namespace stairgrad
