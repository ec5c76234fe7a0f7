// Operators on tensors: a fused kernel (kernels/cpu), its gradient (a kernel too; attention's is ATen's), and a slow definition from simple ATen
// operators, which is the test oracle of both (`*_reference`).
// Tensors are float32 on the CPU, or of 16 bits under autocast (autocast.h); anything else throws Error{internal}: callers convert.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <span>
#include <vector>

#include "kernels/cpu/aligned_buffer.h"
#include "kernels/cpu/kv_cache.h"

namespace frugal::ops {

using at::Tensor;
using kernels::AlignedBuffer;
using kernels::CacheLayout;
using kernels::CachePart;
using kernels::CacheType;

// True when autograd would record an operation on one of these.
bool wants_gradient(std::initializer_list<Tensor> tensors);

// x / sqrt(mean(x^2) + eps) * (weight + weight_offset). x [..., features], weight [features] (arXiv 1910.07467).
Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps, double weight_offset);
Tensor rms_norm_reference(const Tensor& x, const Tensor& weight, double eps, double weight_offset);

// Rotates the first 2 * cos.size(1) channels of each head by pairs (i, i + half). x [tokens, heads, head_dim];
// positions [tokens] int64 index cos, sin [positions, rotary_dim / 2] (arXiv 2104.09864).
Tensor rope(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin);
Tensor rope_reference(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin);

enum class Gate { silu, gelu_tanh };
// f(gate) * up, both [tokens, features] (arXiv 2002.05202).
Tensor gated_activation(const Tensor& gate, const Tensor& up, Gate kind);
Tensor gated_activation_reference(const Tensor& gate, const Tensor& up, Gate kind);

struct AttentionOptions {
  double scale = 1;
  int64_t window = 0;  // 0: full causal
};

struct AttentionRange {
  int64_t begin = 0, count = 0;
};

// Causal attention within each range of rows (whole sequences from position 0). q [tokens, heads, head_dim],
// k, v [tokens, kv_heads, head_dim]; heads is a multiple of kv_heads. -> [tokens, heads, head_dim].
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const AttentionRange> ranges, const AttentionOptions& options);
Tensor attention_reference(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const AttentionRange> ranges, const AttentionOptions& options);

// What one layer keeps in the blocks of a cache: a page of keys and one of values each, as kernels/cpu/kv_cache.h lays them out.
struct CachePages {
  CacheLayout layout;
  std::span<std::byte* const> slabs;  // of `blocks_per_slab` blocks each
  int64_t blocks_per_slab = 1;
  int64_t block_bytes = 0;                   // from a block to the next one of its slab
  int64_t key_offset = 0, value_offset = 0;  // of the pages in their block

  std::byte* page(CachePart part, int32_t block) const {
    return slabs[static_cast<size_t>(block / blocks_per_slab)] + block % blocks_per_slab * block_bytes + (part == CachePart::keys ? key_offset : value_offset);
  }
};
// Rows [begin, begin + count) of q belong to one sequence and are at the last positions of its `length` entries, which are in these
// blocks, in order.
struct CachedSequence {
  int64_t begin = 0, count = 0;
  const CachePages* pages = nullptr;
  std::span<const int32_t> blocks;
  int64_t length = 0;
};
// q [tokens, heads, head_dim] -> the same shape. The sequences cover the rows; their pages have one layout. No gradient.
Tensor cached_attention(const Tensor& q, std::span<const CachedSequence> sequences, const AttentionOptions& options);
// Writes rows [begin, begin + count) of x [tokens, kv_heads, dim] to entries [entry, entry + count) of a sequence that has these blocks.
void write_cache(CachePart part, const CachePages& pages, std::span<const int32_t> blocks, const Tensor& x, int64_t begin, int64_t count, int64_t entry);

// Grouped integers as formats/grouped.h has them, in tensors: codes int32 [rows, ceil(columns * bits / 32)], scales and (unless every
// zero is 2^(bits - 1)) zeros [rows, groups].
struct GroupedTensors {
  Tensor codes, scales;
  std::optional<Tensor> zeros;
  int64_t bits = 4, group_size = 128;
};
// x [tokens, columns] -> [tokens, rows], by decoding the weight; models serve from packed panels instead (packed_linear.h).
Tensor grouped_linear(const Tensor& x, const GroupedTensors& weight);
// Throws Error{invalid_input} for shapes that do not fit.
void check_grouped(const Tensor& x, const GroupedTensors& weight);

// Throws Error{internal} unless `tensor` is float32 on the CPU; returns it contiguous.
Tensor checked_float(const Tensor& tensor, const char* what);

}  // namespace frugal::ops
