// What a sequence remembers between forwards: per layer slot, keys and values in pages. Pages are shared by reference
// count: fork() is O(pages) and a shared page is copied before it is written.
// Owned by one request; not thread-safe. Keys are stored after RoPE.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "nn/spec.h"
#include "ops/ops.h"

namespace frugal::nn {

inline constexpr int64_t kPageSize = 64;  // positions per page: 64 x 3 heads x 64 floats = 48 KB fits L2 beside the query

using ops::CacheType;  // what an entry is rounded to: f32, f16, or int8 with a scale per entry and head

class LayerState {
 public:
  LayerState(int64_t kv_heads, int64_t head_dim, CacheType type);
  // Rows [begin, begin + count) of keys and values, float32 [tokens, kv_heads, head_dim], appended at length().
  void append(const at::Tensor& keys, const at::Tensor& values, int64_t begin, int64_t count);
  void rollback(int64_t length);  // forget positions >= length
  int64_t length() const { return length_; }
  uint64_t bytes() const;
  LayerState fork() const { return *this; }  // shares pages
  // Page p holds positions [p * kPageSize, ...), in layout().
  const ops::CacheLayout& layout() const { return layout_; }
  const std::vector<at::Tensor>& key_pages() const { return key_pages_; }
  const std::vector<at::Tensor>& value_pages() const { return value_pages_; }

 private:
  ops::CacheLayout layout_;
  int64_t length_ = 0;
  std::vector<at::Tensor> key_pages_, value_pages_;
};

class SequenceState {
 public:
  explicit SequenceState(const ModelSpec& spec, CacheType type = CacheType::f32);
  LayerState& slot(int index) { return slots_.at(static_cast<size_t>(index)); }
  int64_t length() const;  // positions seen
  void advance(int64_t count) { length_ += count; }
  void rollback(int64_t length);
  SequenceState fork() const { return *this; }
  uint64_t bytes() const;

 private:
  int64_t length_ = 0;
  std::vector<LayerState> slots_;
};

}  // namespace frugal::nn
