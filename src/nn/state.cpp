#include "nn/state.h"

#include <cstring>
#include <new>
#include <utility>

#include "base/error.h"

namespace frugal::nn {
namespace {

// Blocks of 0.4 to 2 MB; slabs of some MB come from the system as untouched pages and go back to it whole.
constexpr int64_t kBlocksPerSlab = 8;

}  // namespace

KvCache::KvCache(const ModelSpec& spec, CacheType type, int32_t blocks, int64_t context) : pool_(blocks), context_(context) {
  for (const BlockSpec& block : spec.blocks) {
    const auto slot = static_cast<size_t>(block.state_slot);
    if (slots_.size() <= slot) slots_.resize(slot + 1);
    slots_[slot].layout = {type, block.kv_heads, block.head_dim, kPageSize};
  }
  for (Slot& slot : slots_) {
    const int64_t page = (slot.layout.page_bytes() + 63) / 64 * 64;
    slot.key_offset = block_bytes_;
    slot.value_offset = block_bytes_ + page;
    block_bytes_ += 2 * page;
  }
}

std::optional<int32_t> KvCache::allocate() {
  slabs_.reserve(slabs_.size() + 1);
  const std::optional<int32_t> block = pool_.allocate();
  if (block && *block / kBlocksPerSlab >= std::ssize(slabs_)) {
    try {
      memory_.emplace_back(static_cast<uint64_t>(kBlocksPerSlab * block_bytes_), ops::AlignedBuffer::Fill::none);
      slabs_.push_back(memory_.back().data());
    } catch (const std::exception&) {
      memory_.resize(slabs_.size());
      pool_.release(*block);
      pool_.shrink_to(pool_.used());
      return std::nullopt;
    }
  }
  return block;
}

void KvCache::copy(int32_t from, int32_t to) {
  const auto at = [&](int32_t block) { return slabs_[static_cast<size_t>(block / kBlocksPerSlab)] + block % kBlocksPerSlab * block_bytes_; };
  std::memcpy(at(to), at(from), static_cast<size_t>(block_bytes_));
}

ops::CachePages KvCache::pages(int slot) const {
  const Slot& s = slots_.at(static_cast<size_t>(slot));
  return {s.layout, slabs_, kBlocksPerSlab, block_bytes_, s.key_offset, s.value_offset};
}

SequenceState::SequenceState(const ModelSpec& spec, CacheType type) : cache_(std::make_shared<KvCache>(spec, type)) {}

SequenceState::SequenceState(const SequenceState& other) : cache_(other.cache_), blocks_(other.blocks_), length_(other.length_) {
  for (const int32_t block : blocks_) cache_->pool().retain(block);
}

SequenceState::SequenceState(SequenceState&& other) noexcept
    : passage(std::move(other.passage)), cache_(other.cache_), blocks_(std::exchange(other.blocks_, {})), length_(std::exchange(other.length_, 0)) {}

SequenceState& SequenceState::operator=(SequenceState other) noexcept {
  std::swap(passage, other.passage);
  std::swap(cache_, other.cache_);
  std::swap(blocks_, other.blocks_);
  std::swap(length_, other.length_);
  return *this;
}

bool SequenceState::reserve(int64_t count) {
  const auto wanted = static_cast<size_t>(KvCache::blocks_for(length_ + count));
  const size_t before = blocks_.size();
  blocks_.reserve(wanted);  // what throws does so while nothing is taken
  const auto first_written = static_cast<size_t>(length_ / kPageSize);
  std::optional<int32_t> copy;  // in place of a shared block that is half full
  if (count > 0 && first_written < before && cache_->pool().owners(blocks_[first_written]) > 1) {
    copy = cache_->allocate();
    if (!copy) return false;
  }
  while (blocks_.size() < wanted) {
    const std::optional<int32_t> block = cache_->allocate();
    if (!block) {
      release_from(before);
      if (copy) cache_->pool().release(*copy);
      return false;
    }
    blocks_.push_back(*block);
  }
  if (copy) {
    cache_->copy(blocks_[first_written], *copy);
    cache_->pool().release(blocks_[first_written]);
    blocks_[first_written] = *copy;
  }
  return true;
}

void SequenceState::advance(int64_t count) {
  length_ += count;
  passage = {};
  FRUGAL_ASSERT(KvCache::blocks_for(length_) <= std::ssize(blocks_));
}

void SequenceState::rollback(int64_t length) {
  FRUGAL_ASSERT(length >= 0 && length <= length_);
  length_ = length;
  passage = {};
  release_from(static_cast<size_t>(KvCache::blocks_for(length)));
}

void SequenceState::adopt(std::span<const int32_t> blocks) {
  FRUGAL_ASSERT(blocks_.empty());
  blocks_.assign(blocks.begin(), blocks.end());
  for (const int32_t block : blocks_) cache_->pool().retain(block);
  length_ = std::ssize(blocks_) * kPageSize;
}

void SequenceState::use_instead(std::span<const int32_t> blocks) {
  for (size_t i = 0; i < blocks.size(); ++i) {
    cache_->pool().retain(blocks[i]);
    cache_->pool().release(std::exchange(blocks_[i], blocks[i]));
  }
}

void SequenceState::release_from(size_t index) {
  while (blocks_.size() > index) {
    cache_->pool().release(blocks_.back());
    blocks_.pop_back();
  }
}

}  // namespace frugal::nn
