// A caching allocator: freed blocks are kept by size and handed out again, because fresh pages cost page
// faults.
#pragma once

#include <cstddef>

namespace stairgrad {

/// A 64-byte aligned block of at least `bytes`; not initialised. Throws std::bad_alloc.
void* allocate(size_t bytes);

/// Gives a block of allocate(bytes) back to the cache.
void deallocate(void* block, size_t bytes) noexcept;

/// False under AddressSanitizer: there every block is of exactly its size and goes back to the system at
/// once, so that the sanitizer sees who reads beside it or after its end.
extern const bool blocks_are_cached;

struct MemoryStats {
  size_t in_use;    ///< bytes in live blocks
  size_t peak;      ///< largest in_use since the last reset_peak()
  size_t reserved;  ///< bytes held from the system: live and cached
};

MemoryStats memory_stats();
void reset_peak();

/// Returns the cached blocks to the system.
void release_cached_memory();

}  // namespace stairgrad
