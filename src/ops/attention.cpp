#include "kernels/cpu/attention.h"

#include <ATen/ATen.h>

#include <limits>

#include "base/error.h"
#include "ops/into.h"

namespace frugal::ops {
namespace {

constexpr int64_t kPageOfRows = 64;

}  // namespace

Tensor attention_reference(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const AttentionRange> ranges, const AttentionOptions& options) {
  const int64_t share = q.size(1) / k.size(1);
  std::vector<Tensor> outputs;
  for (const AttentionRange& range : ranges) {
    const auto part = [&](const Tensor& x) { return x.narrow(0, range.begin, range.count).transpose(0, 1); };
    const Tensor keys = part(k).repeat_interleave(share, 0), values = part(v).repeat_interleave(share, 0);
    Tensor scores = at::matmul(part(q) * options.scale, keys.transpose(1, 2));  // [heads, count, count]
    const Tensor index = at::arange(range.count, q.options().dtype(at::kLong));
    const Tensor distance = index.unsqueeze(1) - index.unsqueeze(0);
    Tensor hidden = distance < 0;
    if (options.window > 0) hidden = hidden.logical_or(distance >= options.window);
    scores = scores.masked_fill(hidden, -std::numeric_limits<float>::infinity());
    outputs.push_back(at::matmul(at::softmax(scores, -1), values).transpose(0, 1));
  }
  return at::cat(outputs, 0);
}

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const AttentionRange> ranges, const AttentionOptions& options) {
  if (wants_gradient({q, k, v})) return attention_reference(q, k, v, ranges, options);
  Tensor out = at::empty(q.sizes(), at::kFloat);
  attention_into(q, k, v, ranges, options, out);
  return out;
}

// The rows become a cache of floats, so that a sequence is computed as it is with one.
void attention_into(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const AttentionRange> ranges, const AttentionOptions& options, Tensor& out) {
  FRUGAL_ASSERT(q.dim() == 3 && k.sizes() == v.sizes() && q.size(0) == k.size(0) && q.size(2) == k.size(2) && q.size(1) % k.size(1) == 0);
  const CacheLayout layout = {CacheType::f32, k.size(1), k.size(2), kPageOfRows};
  struct Pages {
    std::vector<Tensor> keys, values;
  };
  std::vector<Pages> pages(ranges.size());
  std::vector<CachedSequence> sequences;
  for (size_t i = 0; i < ranges.size(); ++i) {
    const AttentionRange& range = ranges[i];
    for (int64_t entry = 0; entry < range.count; entry += kPageOfRows) {
      const int64_t count = std::min(kPageOfRows, range.count - entry);
      pages[i].keys.push_back(at::empty({layout.page_bytes()}, at::kByte));
      pages[i].values.push_back(at::empty({layout.page_bytes()}, at::kByte));
      write_cache(CachePart::keys, layout, k, range.begin + entry, count, pages[i].keys.back(), 0);
      write_cache(CachePart::values, layout, v, range.begin + entry, count, pages[i].values.back(), 0);
    }
    sequences.push_back({range.begin, range.count, &pages[i].keys, &pages[i].values, range.count});
  }
  cached_attention_into(q, layout, sequences, options, out);
}

Tensor cached_attention(const Tensor& q, const CacheLayout& layout, std::span<const CachedSequence> sequences, const AttentionOptions& options) {
  Tensor out = at::empty(q.sizes(), at::kFloat);
  cached_attention_into(q, layout, sequences, options, out);
  return out;
}

void cached_attention_into(const Tensor& q, const CacheLayout& layout, std::span<const CachedSequence> sequences, const AttentionOptions& options,
                           Tensor& out) {
  const Tensor queries = checked_float(q, "query");
  FRUGAL_ASSERT(queries.dim() == 3 && out.numel() == queries.numel() && queries.size(2) == layout.dim && queries.size(1) % layout.kv_heads == 0);
  const int64_t width = queries.size(1) * queries.size(2);
  std::vector<int64_t> positions(static_cast<size_t>(queries.size(0)));
  std::vector<const void*> pages;
  for (const CachedSequence& sequence : sequences) {
    FRUGAL_ASSERT(sequence.count <= sequence.length && sequence.begin + sequence.count <= queries.size(0));
    for (int64_t i = 0; i < sequence.count; ++i) positions[static_cast<size_t>(sequence.begin + i)] = sequence.length - sequence.count + i;
    for (const std::vector<Tensor>* part : {sequence.key_pages, sequence.value_pages}) {
      FRUGAL_ASSERT(static_cast<int64_t>(part->size()) * layout.page_size >= sequence.length);
      for (const Tensor& page : *part) pages.push_back(page.const_data_ptr());
    }
  }
  std::vector<kernels::AttentionSequence> rows;
  const void* const* next = pages.data();
  for (const CachedSequence& sequence : sequences) {
    rows.push_back({.q = queries.const_data_ptr<float>() + sequence.begin * width,
                    .out = out.mutable_data_ptr<float>() + sequence.begin * width,
                    .rows = sequence.count,
                    .positions = positions.data() + sequence.begin,
                    .key_pages = next,
                    .value_pages = next + sequence.key_pages->size(),
                    .length = sequence.length});
    next += sequence.key_pages->size() + sequence.value_pages->size();
  }
  kernels::attention({.heads = queries.size(1),
                      .kv_heads = layout.kv_heads,
                      .head_dim = layout.dim,
                      .scale = static_cast<float>(options.scale),
                      .window = options.window,
                      .cache = layout.type,
                      .page_size = layout.page_size},
                     rows);
}

void write_cache(CachePart part, const CacheLayout& layout, const Tensor& x, int64_t begin, int64_t count, Tensor& page, int64_t offset) {
  const Tensor source = checked_float(x, "keys or values");
  FRUGAL_ASSERT(source.dim() == 3 && source.size(1) == layout.kv_heads && source.size(2) == layout.dim);
  FRUGAL_ASSERT(begin >= 0 && begin + count <= source.size(0) && page.scalar_type() == at::kByte && page.numel() == layout.page_bytes());
  const float* rows = source.const_data_ptr<float>() + begin * layout.kv_heads * layout.dim;
  kernels::write_cache(part, layout, rows, count, page.mutable_data_ptr(), offset);
}

}  // namespace frugal::ops
