// The pages of a KV cache, in the order in which attention reads them. A page holds `page_size` entries; in it every kv head has
// one block of bytes, keys with the entries side by side (a vector holds one dimension of 8 or 16 entries, so that scores need no
// sum across lanes) and values with the dimensions side by side:
//   keys   [kv_head][dim][page_size]    values [kv_head][page_size][dim]
// int8: behind the codes of a block follow page_size fp32 scales, one per entry and head: scale = max |x| / 127.
#pragma once

#include <cstdint>

namespace frugal::kernels {

enum class CacheType : uint8_t { f32, f16, int8 };

struct CacheLayout {
  CacheType type = CacheType::f32;
  int64_t kv_heads = 0;
  int64_t dim = 0;
  int64_t page_size = 0;  // a multiple of 32

  int64_t element_bytes() const { return type == CacheType::f32 ? 4 : type == CacheType::f16 ? 2 : 1; }
  int64_t block_bytes() const { return page_size * dim * element_bytes() + (type == CacheType::int8 ? page_size * 4 : 0); }
  int64_t page_bytes() const { return kv_heads * block_bytes(); }
  bool operator==(const CacheLayout&) const = default;
};

enum class CachePart : uint8_t { keys, values };

// Writes rows [count, kv_heads, dim] at entries [offset, offset + count) of a page, rounded to the cache's type (to nearest even).
// In an int8 cache, a row with a value that is not finite gets the scale NaN. Throws Error{invalid_input} for bad sizes.
void write_cache(CachePart part, const CacheLayout& layout, const float* rows, int64_t count, void* page, int64_t offset);

}  // namespace frugal::kernels
