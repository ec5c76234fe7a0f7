#include "nn/block_pool.h"

#include "base/error.h"

namespace frugal::nn {

std::optional<int32_t> BlockPool::allocate() {
  if (used_ == capacity_) return std::nullopt;
  if (free_.empty()) {
    free_.reserve(owners_.size() + 1);  // release() does not throw
    owners_.push_back(1);
    ++used_;
    return static_cast<int32_t>(owners_.size() - 1);
  }
  ++used_;
  const int32_t block = free_.back();
  free_.pop_back();
  owners_[static_cast<size_t>(block)] = 1;
  return block;
}

void BlockPool::shrink_to(int32_t capacity) {
  FRUGAL_ASSERT(capacity >= used_ && capacity <= capacity_);
  capacity_ = capacity;
}

void BlockPool::retain(int32_t block) {
  FRUGAL_ASSERT(owners(block) > 0);
  ++owners_[static_cast<size_t>(block)];
}

bool BlockPool::release(int32_t block) {
  FRUGAL_ASSERT(owners(block) > 0);
  if (--owners_[static_cast<size_t>(block)] > 0) return false;
  free_.push_back(block);
  --used_;
  return true;
}

}  // namespace frugal::nn
