#include "kernels/cpu/kv_cache.h"

#include <cstddef>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/quantize_activations.h"

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

// rows [count, kv_heads, dim] of elements, heads `stride` apart, into the blocks of a page.
template <typename Element>
void place(CachePart part, const CacheLayout& layout, const Element* rows, int64_t stride, int64_t count, std::byte* page, int64_t offset) {
  const int64_t width = layout.kv_heads * stride;
  for (int64_t head = 0; head < layout.kv_heads; ++head) {
    auto* block = reinterpret_cast<Element*>(page + head * layout.block_bytes());
    const Element* source = rows + head * stride;
    if (part == CachePart::keys) {
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

}  // namespace

void write_cache(CachePart part, const CacheLayout& layout, const float* rows, int64_t count, void* page, int64_t offset) {
  check(layout, count, offset);
  auto* bytes = static_cast<std::byte*>(page);
  if (layout.type == CacheType::f32) return place(part, layout, rows, layout.dim, count, bytes, offset);
  const int64_t heads = count * layout.kv_heads;
  if (layout.type == CacheType::f16) {
    std::vector<uint16_t> halves(static_cast<size_t>(heads * layout.dim));
    kernels().to_f16(rows, halves.data(), heads * layout.dim);
    return place(part, layout, halves.data(), layout.dim, count, bytes, offset);
  }
  thread_local QuantizedActivations quantized;
  quantized.quantize(rows, heads, layout.dim, layout.dim, {.mode = ActivationScale::per_token});
  const ActivationView& view = quantized.view();
  for (int64_t i = 0; i < heads; ++i) {
    std::byte* scales = bytes + i % layout.kv_heads * layout.block_bytes() + layout.page_size * layout.dim;
    std::memcpy(scales + (offset + i / layout.kv_heads) * 4, view.scales + i * (view.padded_columns / kActivationBlock), 4);
  }
  place(part, layout, view.codes, view.padded_columns, count, bytes, offset);
}

}  // namespace frugal::kernels
