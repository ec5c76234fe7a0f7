#include "nn/state.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <tuple>

#include "base/error.h"

namespace frugal::nn {
namespace {

int64_t pages_for(int64_t positions) { return (positions + kPageSize - 1) / kPageSize; }

}  // namespace

LayerState::LayerState(int64_t kv_heads, int64_t head_dim, CacheType type) : layout_{type, kv_heads, head_dim, kPageSize} {}

void LayerState::append(const at::Tensor& keys, const at::Tensor& values, int64_t begin, int64_t count) {
  FRUGAL_ASSERT(keys.sizes() == values.sizes());
  const c10::InferenceMode ordinary(false);  // pages outlive the step that makes them
  const at::NoGradGuard no_grad;
  for (const int64_t end = begin + count; begin < end;) {
    const int64_t page = length_ / kPageSize, offset = length_ % kPageSize;
    const int64_t rows = std::min(kPageSize - offset, end - begin);
    for (auto [pages, source, part] : {std::tuple{&key_pages_, &keys, ops::CachePart::keys}, std::tuple{&value_pages_, &values, ops::CachePart::values}}) {
      if (page == static_cast<int64_t>(pages->size())) pages->push_back(at::zeros({layout_.page_bytes()}, at::kByte));
      at::Tensor& target = (*pages)[static_cast<size_t>(page)];
      if (target.use_count() > 1) target = target.clone();  // shared with a fork
      ops::write_cache(part, layout_, *source, begin, rows, target, offset);
    }
    begin += rows;
    length_ += rows;
  }
}

void LayerState::rollback(int64_t length) {
  FRUGAL_ASSERT(length >= 0 && length <= length_);
  length_ = length;
  key_pages_.resize(static_cast<size_t>(pages_for(length)));
  value_pages_.resize(static_cast<size_t>(pages_for(length)));
}

uint64_t LayerState::bytes() const { return 2 * key_pages_.size() * static_cast<uint64_t>(layout_.page_bytes()); }

SequenceState::SequenceState(const ModelSpec& spec, CacheType type) {
  for (const BlockSpec& block : spec.blocks) {
    while (static_cast<int>(slots_.size()) <= block.state_slot) slots_.emplace_back(block.kv_heads, block.head_dim, type);
  }
  for (const BlockSpec& block : spec.blocks) slots_[static_cast<size_t>(block.state_slot)] = LayerState(block.kv_heads, block.head_dim, type);
}

int64_t SequenceState::length() const { return length_; }

void SequenceState::rollback(int64_t length) {
  for (LayerState& slot : slots_) {
    if (slot.length() > length) slot.rollback(length);
  }
  length_ = length;
}

uint64_t SequenceState::bytes() const {
  uint64_t total = 0;
  for (const LayerState& slot : slots_) total += slot.bytes();
  return total;
}

}  // namespace frugal::nn
