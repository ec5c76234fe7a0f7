#include "nn/state.h"

#include <ATen/ATen.h>

#include "base/error.h"

namespace frugal::nn {
namespace {

int64_t pages_for(int64_t positions) { return (positions + kPageSize - 1) / kPageSize; }

at::Tensor gather(const std::vector<at::Tensor>& pages, int64_t length, int64_t kv_heads, int64_t head_dim) {
  if (pages.empty()) return at::empty({0, kv_heads, head_dim});
  return at::cat(pages, 0).narrow(0, 0, length).contiguous();
}

}  // namespace

LayerState::LayerState(int64_t kv_heads, int64_t head_dim) : kv_heads_(kv_heads), head_dim_(head_dim) {}

void LayerState::append(const at::Tensor& keys, const at::Tensor& values) {
  FRUGAL_ASSERT(keys.dim() == 3 && keys.sizes() == values.sizes() && keys.size(1) == kv_heads_ && keys.size(2) == head_dim_);
  const c10::InferenceMode ordinary(false);  // pages outlive the step that makes them
  const at::NoGradGuard no_grad;
  int64_t done = 0;
  while (done < keys.size(0)) {
    const int64_t page = length_ / kPageSize, offset = length_ % kPageSize;
    const int64_t count = std::min(kPageSize - offset, keys.size(0) - done);
    for (auto [pages, source] : {std::pair{&key_pages_, &keys}, std::pair{&value_pages_, &values}}) {
      if (page == static_cast<int64_t>(pages->size())) pages->push_back(at::zeros({kPageSize, kv_heads_, head_dim_}));
      at::Tensor& target = (*pages)[static_cast<size_t>(page)];
      if (target.use_count() > 1) target = target.clone();  // shared with a fork
      target.narrow(0, offset, count).copy_(source->narrow(0, done, count));
    }
    done += count;
    length_ += count;
  }
}

void LayerState::rollback(int64_t length) {
  FRUGAL_ASSERT(length >= 0 && length <= length_);
  length_ = length;
  key_pages_.resize(static_cast<size_t>(pages_for(length)));
  value_pages_.resize(static_cast<size_t>(pages_for(length)));
}

uint64_t LayerState::bytes() const { return 2 * key_pages_.size() * static_cast<uint64_t>(kPageSize * kv_heads_ * head_dim_) * sizeof(float); }

at::Tensor LayerState::keys() const { return gather(key_pages_, length_, kv_heads_, head_dim_); }
at::Tensor LayerState::values() const { return gather(value_pages_, length_, kv_heads_, head_dim_); }

SequenceState::SequenceState(const ModelSpec& spec) {
  for (const BlockSpec& block : spec.blocks) {
    while (static_cast<int>(slots_.size()) <= block.state_slot) slots_.emplace_back(block.kv_heads, block.head_dim);
  }
  for (const BlockSpec& block : spec.blocks) slots_[static_cast<size_t>(block.state_slot)] = LayerState(block.kv_heads, block.head_dim);
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
