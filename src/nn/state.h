// What sequences remember between forwards. A KvCache is memory in blocks, each for the keys and values of kPageSize positions of all
// layers; a SequenceState names the blocks of one sequence, in order. Blocks may have several owners (a fork, a cached prefix); a
// shared one is copied before it is written. Keys are stored after RoPE. Not thread-safe: one thread makes forwards.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "nn/block_pool.h"
#include "nn/spec.h"
#include "ops/ops.h"

namespace frugal::nn {

inline constexpr int64_t kPageSize = 64;  // positions of a block; of a page, 64 x 3 heads x 64 floats = 48 KB fit L2 beside the query

using ops::CacheType;  // what an entry is rounded to: f32, f16, or int8 with a scale per entry and head

class KvCache {
 public:
  // `context`: the length that the rotary frequencies of all its sequences are for, where they depend on the length (dynamic, longrope):
  // then no sequence changes another one's. 0: each forward goes by its longest.
  KvCache(const ModelSpec& spec, CacheType type, int32_t blocks = BlockPool::kUnlimited, int64_t context = 0);
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  BlockPool& pool() { return pool_; }
  // A block, with memory: slabs of blocks are taken from the system as they are needed, and kept. Empty: all blocks are taken, or the system
  // has no memory; then the pool has no more blocks than it has used until now.
  std::optional<int32_t> allocate();
  int64_t context() const { return context_; }
  void copy(int32_t from, int32_t to);
  // Of the layers that use this slot of BlockSpec::state_slot. Valid until the next allocate().
  ops::CachePages pages(int slot) const;
  int64_t block_bytes() const { return block_bytes_; }
  static int64_t blocks_for(int64_t positions) { return (positions + kPageSize - 1) / kPageSize; }

 private:
  struct Slot {
    ops::CacheLayout layout;
    int64_t key_offset = 0, value_offset = 0;
  };
  BlockPool pool_;
  std::vector<Slot> slots_;
  int64_t block_bytes_ = 0, context_;
  std::vector<ops::AlignedBuffer> memory_;
  std::vector<std::byte*> slabs_;  // where each is
};

// Rows between two forwards, each of which takes them through some blocks (SequenceSlice::until_block).
struct Passage {
  ops::Tensor hidden;  // [rows, hidden], never written in place
  int64_t next_block = 0;
};

class SequenceState {
 public:
  // With a cache of its own, which grows with it.
  explicit SequenceState(const ModelSpec& spec, CacheType type = CacheType::f32);
  explicit SequenceState(std::shared_ptr<KvCache> cache) : cache_(std::move(cache)) {}
  // A copy shares the blocks; a passage stays with the first.
  SequenceState(const SequenceState& other);
  SequenceState(SequenceState&& other) noexcept;
  SequenceState& operator=(SequenceState other) noexcept;
  ~SequenceState() { release_from(0); }
  SequenceState fork() const { return *this; }

  // Makes room for `count` more positions in blocks of its own. false: the cache is full, and nothing changed.
  bool reserve(int64_t count);
  int64_t length() const { return length_; }  // positions that are there
  void advance(int64_t count);                // reserved ones that were written
  void rollback(int64_t length);              // forget positions >= length
  // Starts with full blocks of another sequence with the same tokens: retains them. Only while empty.
  void adopt(std::span<const int32_t> blocks);
  // Goes on with these in place of its first, which hold the same: two sequences that computed one beginning share it from then on.
  void use_instead(std::span<const int32_t> blocks);

  // Of the positions behind length(). Forgotten when they are there, and with a rollback.
  Passage passage;

  std::span<const int32_t> blocks() const { return blocks_; }
  ops::CachePages pages(int slot) const { return cache_->pages(slot); }
  int64_t context() const { return cache_->context(); }
  uint64_t bytes() const { return blocks_.size() * static_cast<uint64_t>(cache_->block_bytes()); }

 private:
  void release_from(size_t index);
  std::shared_ptr<KvCache> cache_;
  std::vector<int32_t> blocks_;
  int64_t length_ = 0;
};

}  // namespace frugal::nn
