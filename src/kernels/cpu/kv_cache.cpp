#include "kernels/cpu/kv_cache.h"

#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <vector>

#include "base/error.h"
#include "kernels/cpu/kernel_table.h"

namespace frugal::kernels {
namespace {

void check(const CacheLayout& layout, int64_t count, int64_t offset) {
  if (layout.kv_heads < 1 || layout.dim < 1 || layout.page_size < 1 || layout.page_size % kAttentionTile != 0) {
    fail(ErrorKind::invalid_input, "cache: {} heads of {} in pages of {}", layout.kv_heads, layout.dim, layout.page_size);
  }
  if (count < 0 || offset < 0 || count > layout.page_size - offset) {
    fail(ErrorKind::invalid_input, "cache: {} entries at {} of a page of {}", count, offset, layout.page_size);
  }
}

// Codes and scale of one entry of one head.
float quantize_entry(const float* x, int64_t dim, int8_t* codes) {
  float largest = 0;
  for (int64_t d = 0; d < dim; ++d) {
    if (!std::isfinite(x[d])) {
      std::memset(codes, 0, static_cast<size_t>(dim));
      return std::numeric_limits<float>::quiet_NaN();
    }
    largest = std::max(largest, std::fabs(x[d]));
  }
  const float scale = largest / 127.0f, inverse = scale > 0 ? 1.0f / scale : 0.0f;
  for (int64_t d = 0; d < dim; ++d) codes[d] = static_cast<int8_t>(std::lrintf(std::fmin(std::fmax(x[d] * inverse, -127.0f), 127.0f)));
  return scale;
}

// rows [count, kv_heads, dim] of elements into the blocks of a page.
template <typename Element>
void place(const CacheLayout& layout, bool keys, const Element* rows, int64_t count, std::byte* page, int64_t offset) {
  const int64_t width = layout.kv_heads * layout.dim;
  for (int64_t head = 0; head < layout.kv_heads; ++head) {
    auto* block = reinterpret_cast<Element*>(page + head * layout.block_bytes());
    const Element* source = rows + head * layout.dim;
    if (keys) {
      for (int64_t d = 0; d < layout.dim; ++d) {
        Element* out = block + d * layout.page_size + offset;
        for (int64_t r = 0; r < count; ++r) out[r] = source[r * width + d];
      }
    } else {
      for (int64_t r = 0; r < count; ++r) {
        std::memcpy(block + (offset + r) * layout.dim, source + r * width, static_cast<size_t>(layout.dim) * sizeof(Element));
      }
    }
  }
}

void write(const CacheLayout& layout, bool keys, const float* rows, int64_t count, void* page, int64_t offset) {
  check(layout, count, offset);
  auto* bytes = static_cast<std::byte*>(page);
  const int64_t width = layout.kv_heads * layout.dim;
  if (layout.type == CacheType::f32) return place(layout, keys, rows, count, bytes, offset);
  if (layout.type == CacheType::f16) {
    std::vector<uint16_t> halves(static_cast<size_t>(count * width));
    kernels().to_f16(rows, halves.data(), count * width);
    return place(layout, keys, halves.data(), count, bytes, offset);
  }
  std::vector<int8_t> codes(static_cast<size_t>(count * width));
  for (int64_t i = 0; i < count * layout.kv_heads; ++i) {
    const float scale = quantize_entry(rows + i * layout.dim, layout.dim, codes.data() + i * layout.dim);
    std::byte* scales = bytes + i % layout.kv_heads * layout.block_bytes() + layout.page_size * layout.dim;
    std::memcpy(scales + (offset + i / layout.kv_heads) * 4, &scale, 4);
  }
  place(layout, keys, codes.data(), count, bytes, offset);
}

}  // namespace

void write_keys(const CacheLayout& layout, const float* rows, int64_t count, void* page, int64_t offset) { write(layout, true, rows, count, page, offset); }
void write_values(const CacheLayout& layout, const float* rows, int64_t count, void* page, int64_t offset) { write(layout, false, rows, count, page, offset); }

}  // namespace frugal::kernels
