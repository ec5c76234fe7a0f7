#include "kernels/cpu/attention.h"

#include <ATen/ATen.h>

#include <cstring>
#include <limits>

#include "base/error.h"
#include "ops/into.h"

namespace frugal::ops {
namespace {

kernels::AttentionShape shape_of(const Tensor& q, int64_t kv_heads, int64_t page_size, const AttentionOptions& options) {
  return {.heads = q.size(1),
          .kv_heads = kv_heads,
          .head_dim = q.size(2),
          .scale = static_cast<float>(options.scale),
          .window = options.window,
          .page_size = page_size};
}

}  // namespace

Tensor attention_reference(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const AttentionRange> ranges, const AttentionOptions& options) {
  const int64_t share = q.size(1) / k.size(1);
  std::vector<Tensor> outputs;
  for (const AttentionRange& range : ranges) {
    const auto part = [&](const Tensor& x) { return x.narrow(0, range.begin, range.count).transpose(0, 1); };
    const Tensor keys = part(k).repeat_interleave(share, 0), values = part(v).repeat_interleave(share, 0);
    Tensor scores = at::matmul(part(q) * options.scale, keys.transpose(1, 2));  // [heads, count, count]
    const Tensor index = at::arange(range.count);
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

void attention_into(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const AttentionRange> ranges, const AttentionOptions& options, Tensor& out) {
  FRUGAL_ASSERT(q.dim() == 3 && k.sizes() == v.sizes() && q.size(0) == k.size(0) && q.size(2) == k.size(2) && q.size(1) % k.size(1) == 0);
  const Tensor queries = checked_float(q, "query"), keys = checked_float(k, "key"), values = checked_float(v, "value");
  FRUGAL_ASSERT(out.numel() == queries.numel());
  int64_t longest = 1;
  for (const AttentionRange& range : ranges) longest = std::max(longest, range.count);
  std::vector<int64_t> positions(static_cast<size_t>(longest));
  for (int64_t i = 0; i < longest; ++i) positions[static_cast<size_t>(i)] = i;
  const int64_t q_row = q.size(1) * q.size(2), k_row = k.size(1) * k.size(2);
  std::vector<const void*> key_pages, value_pages;
  for (const AttentionRange& range : ranges) {
    key_pages.push_back(keys.const_data_ptr<float>() + range.begin * k_row);
    value_pages.push_back(values.const_data_ptr<float>() + range.begin * k_row);
  }
  std::vector<kernels::AttentionSequence> sequences;
  for (size_t i = 0; i < ranges.size(); ++i) {
    sequences.push_back({.q = queries.const_data_ptr<float>() + ranges[i].begin * q_row,
                         .out = out.mutable_data_ptr<float>() + ranges[i].begin * q_row,
                         .rows = ranges[i].count,
                         .positions = positions.data(),
                         .key_pages = &key_pages[i],
                         .value_pages = &value_pages[i],
                         .length = ranges[i].count});
  }
  kernels::attention(shape_of(queries, k.size(1), longest, options), sequences);
}

Tensor cached_attention(const Tensor& q, std::span<const CachedSequence> sequences, const AttentionOptions& options) {
  Tensor out = at::empty(q.sizes(), at::kFloat);
  cached_attention_into(q, sequences, options, out);
  return out;
}

void cached_attention_into(const Tensor& q, std::span<const CachedSequence> sequences, const AttentionOptions& options, Tensor& out) {
  const Tensor queries = checked_float(q, "query");
  FRUGAL_ASSERT(queries.dim() == 3 && !sequences.empty() && !sequences.front().key_pages->empty() && out.numel() == queries.numel());
  const int64_t width = queries.size(1) * queries.size(2);
  std::vector<int64_t> positions(static_cast<size_t>(queries.size(0)));
  std::vector<const void*> pages;
  for (const CachedSequence& sequence : sequences) {
    FRUGAL_ASSERT(sequence.key_pages->front().scalar_type() == sequences.front().key_pages->front().scalar_type());
    FRUGAL_ASSERT(sequence.count <= sequence.length && sequence.begin + sequence.count <= queries.size(0));
    for (int64_t i = 0; i < sequence.count; ++i) positions[static_cast<size_t>(sequence.begin + i)] = sequence.length - sequence.count + i;
    for (const Tensor& page : *sequence.key_pages) pages.push_back(page.const_data_ptr());
    for (const Tensor& page : *sequence.value_pages) pages.push_back(page.const_data_ptr());
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
  const Tensor& first = sequences.front().key_pages->front();
  kernels::AttentionShape shape = shape_of(queries, first.size(1), first.size(0), options);
  if (first.scalar_type() == at::kHalf) shape.cache = kernels::CacheType::f16;
  kernels::attention(shape, rows);
}

void write_cache(const Tensor& x, int64_t begin, int64_t count, Tensor& page, int64_t offset) {
  const Tensor source = checked_float(x, "keys or values");
  const int64_t width = page.size(1) * page.size(2);
  FRUGAL_ASSERT(source.dim() == 3 && source.size(1) == page.size(1) && source.size(2) == page.size(2));
  FRUGAL_ASSERT(begin + count <= source.size(0) && offset + count <= page.size(0));
  const float* from = source.const_data_ptr<float>() + begin * width;
  if (page.scalar_type() == at::kHalf) {
    kernels::convert_to_f16(from, reinterpret_cast<uint16_t*>(page.mutable_data_ptr<at::Half>()) + offset * width, count * width);
  } else {
    std::memcpy(page.mutable_data_ptr<float>() + offset * width, from, static_cast<size_t>(count * width) * sizeof(float));
  }
}

}  // namespace frugal::ops
