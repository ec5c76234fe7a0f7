// Causal attention over a paged KV cache, for decode and for reading a prompt: online softmax over tiles of 32 entries, float
// accumulation, O(rows) memory (Milakov and Gimelshein 2018, arXiv 1805.02867; FlashAttention, arXiv 2205.14135).
//   score = scale * dot(q, k);  if softcap > 0: score = softcap * tanh(score / softcap)
//   row r sees the entries e with positions[r] - window < e <= positions[r]   (window 0: no lower bound)
// The cache is walked in chunks of 512 entries whose partial results are merged in order, so that few rows over a long cache
// still use the whole team; the chunks do not depend on the call, hence a row's result does not depend, to the bit, on the
// other rows of the call or the size of the team.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/kv_cache.h"

namespace frugal::kernels {

struct AttentionShape {
  int64_t heads = 0;  // query heads, a multiple of kv_heads
  int64_t kv_heads = 0;
  int64_t head_dim = 0;   // of Q and K, 1..1024
  int64_t value_dim = 0;  // of V and out; 0: head_dim
  float scale = 1;
  int64_t window = 0;
  float softcap = 0;
  CacheType cache = CacheType::f32;
  int64_t page_size = 0;  // entries per page, a multiple of 32
};

// The rows of one sequence.
struct AttentionSequence {
  const float* q = nullptr;  // [rows, heads, head_dim], rows `q_stride` floats apart
  int64_t q_stride = 0;      // 0: heads * head_dim
  float* out = nullptr;      // [rows, heads, value_dim], rows `out_stride` floats apart
  int64_t out_stride = 0;    // 0: heads * value_dim
  int64_t rows = 0;
  const int64_t* positions = nullptr;        // [rows]: index of the row's own entry in the cache
  const void* const* key_pages = nullptr;    // [pages], see kv_cache.h
  const void* const* value_pages = nullptr;  // [pages]
  int64_t length = 0;                        // entries in the cache; positions are < length
};

// Throws Error{invalid_input} for sizes, strides or positions out of range. A position < 0 gives a row of zeros.
void attention(const AttentionShape& shape, std::span<const AttentionSequence> sequences);

}  // namespace frugal::kernels
