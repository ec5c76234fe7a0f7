// The bookkeeping of a paged cache: which blocks are taken, and how many owners each has. Numbers only; kv_cache.h has the memory. Not
// thread-safe.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

namespace frugal::nn {

class BlockPool {
 public:
  static constexpr int32_t kUnlimited = std::numeric_limits<int32_t>::max();
  explicit BlockPool(int32_t capacity = kUnlimited) : capacity_(capacity) {}

  std::optional<int32_t> allocate();  // with one owner; empty: all are taken
  void retain(int32_t block);         // one owner more
  bool release(int32_t block);        // one owner less; true: it was the last one, the block is free
  int32_t owners(int32_t block) const { return owners_[static_cast<size_t>(block)]; }

  void shrink_to(int32_t capacity);  // at least what is used

  int32_t capacity() const { return capacity_; }
  int32_t used() const { return used_; }
  int32_t free() const { return capacity_ - used_; }

 private:
  int32_t capacity_, used_ = 0;
  std::vector<int32_t> owners_;  // of each block that was ever taken
  std::vector<int32_t> free_;    // of these, the free ones; the last freed is the first taken, its memory is in a cache
};

}  // namespace frugal::nn
