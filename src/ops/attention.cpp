#include "kernels/cpu/attention.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "ops/autocast.h"
#include "ops/into.h"

namespace frugal::ops {
namespace {

constexpr int64_t kPageOfRows = 64;

// With a gradient: ATen's flash attention, whose memory is linear in the length (arXiv 2307.08691). Neighbouring ranges of one length are one
// batch. A window costs a mask of [length, length] where it is shorter than the range.
Tensor flash_attention(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const AttentionRange> ranges, const AttentionOptions& options) {
  std::vector<Tensor> outputs;
  for (size_t i = 0; i < ranges.size();) {
    const size_t first = i;
    while (i < ranges.size() && ranges[i].count == ranges[first].count &&
           ranges[i].begin == ranges[first].begin + static_cast<int64_t>(i - first) * ranges[first].count)
      ++i;
    const int64_t length = ranges[first].count, count = static_cast<int64_t>(i - first), rows = length * count;
    const auto part = [&](const Tensor& x) { return x.narrow(0, ranges[first].begin, rows).view({count, length, x.size(1), x.size(2)}).transpose(1, 2); };
    std::optional<Tensor> mask;
    if (options.window > 0 && options.window < length) {
      const Tensor index = at::arange(length, at::kLong), distance = index.unsqueeze(1) - index.unsqueeze(0);
      mask =
          at::zeros({length, length}, at::kFloat).masked_fill_((distance < 0).logical_or(distance >= options.window), -std::numeric_limits<float>::infinity());
    }
    const Tensor out = at::scaled_dot_product_attention(part(q), part(k), part(v), mask, 0.0, !mask, options.scale, /*enable_gqa=*/q.size(1) != k.size(1));
    outputs.push_back(out.transpose(1, 2).reshape({rows, q.size(1), v.size(2)}));
  }
  return outputs.size() == 1 ? outputs.front() : at::cat(outputs, 0);
}

using torch::autograd::AutogradContext;

// On 16-bit queries, keys and values, which alone are kept: computed in float32, and again in backward (ATen's 16-bit flash attention takes four to six
// times as long there on processors without such arithmetic).
class HalfAttention : public torch::autograd::Function<HalfAttention> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& q, const Tensor& k, const Tensor& v, std::vector<AttentionRange> ranges,
                        const AttentionOptions& options) {
    const at::ScalarType type = activation_type(q);
    const Tensor query = q.to(type), key = k.to(type), value = v.to(type);
    context->save_for_backward({query, key, value});
    for (const auto& [name, x] : {std::pair{"q", &q}, std::pair{"k", &k}, std::pair{"v", &v}}) context->saved_data[name] = x->scalar_type();
    std::vector<int64_t> begins, counts;
    for (const AttentionRange& range : ranges) {
      begins.push_back(range.begin);
      counts.push_back(range.count);
    }
    context->saved_data["begins"] = begins;
    context->saved_data["counts"] = counts;
    context->saved_data["scale"] = options.scale;
    context->saved_data["window"] = options.window;
    return flash_attention(query.to(at::kFloat), key.to(at::kFloat), value.to(at::kFloat), ranges, options).to(type);
  }
  static torch::autograd::variable_list backward(AutogradContext* context, torch::autograd::variable_list gradients) {
    torch::autograd::variable_list inputs;
    for (const Tensor& saved : context->get_saved_variables()) inputs.push_back(saved.detach().to(at::kFloat).requires_grad_());
    const std::vector<int64_t> begins = context->saved_data["begins"].toIntVector(), counts = context->saved_data["counts"].toIntVector();
    std::vector<AttentionRange> ranges;
    for (size_t i = 0; i < begins.size(); ++i) ranges.push_back({begins[i], counts[i]});
    const at::AutoGradMode grad(true);
    const Tensor out =
        flash_attention(inputs[0], inputs[1], inputs[2], ranges, {context->saved_data["scale"].toDouble(), context->saved_data["window"].toInt()});
    auto by = torch::autograd::grad({out}, inputs, {gradients[0].to(at::kFloat)});
    by[0] = by[0].to(context->saved_data["q"].toScalarType());
    by[1] = by[1].to(context->saved_data["k"].toScalarType());
    by[2] = by[2].to(context->saved_data["v"].toScalarType());
    by.resize(5);
    return by;
  }
};

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
  if (activation_type(q) != at::kFloat) return HalfAttention::apply(q, k, v, std::vector(ranges.begin(), ranges.end()), options);
  if (wants_gradient({q, k, v})) return flash_attention(q, k, v, ranges, options);
  Tensor out = at::empty(q.sizes(), at::kFloat);
  attention_into(q, k, v, ranges, options, out);
  return out;
}

// The rows become a cache of floats, so that a sequence is computed as it is with one.
void attention_into(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const AttentionRange> ranges, const AttentionOptions& options, Tensor& out) {
  FRUGAL_ASSERT(q.dim() == 3 && k.sizes() == v.sizes() && q.size(0) == k.size(0) && q.size(2) == k.size(2) && q.size(1) % k.size(1) == 0);
  std::vector<std::vector<int32_t>> blocks(ranges.size());
  int32_t count = 0;
  for (size_t i = 0; i < ranges.size(); ++i) {
    for (int64_t entry = 0; entry < ranges[i].count; entry += kPageOfRows) blocks[i].push_back(count++);
  }
  const CacheLayout layout = {CacheType::f32, k.size(1), k.size(2), kPageOfRows};
  const Tensor memory = at::empty({count * 2 * layout.page_bytes()}, at::kByte);
  std::byte* const slab = static_cast<std::byte*>(memory.mutable_data_ptr());
  const CachePages pages{layout, {&slab, 1}, std::max(1, count), 2 * layout.page_bytes(), 0, layout.page_bytes()};
  std::vector<CachedSequence> sequences;
  for (size_t i = 0; i < ranges.size(); ++i) {
    write_cache(CachePart::keys, pages, blocks[i], k, ranges[i].begin, ranges[i].count, 0);
    write_cache(CachePart::values, pages, blocks[i], v, ranges[i].begin, ranges[i].count, 0);
    sequences.push_back({ranges[i].begin, ranges[i].count, &pages, blocks[i], ranges[i].count});
  }
  cached_attention_into(q, sequences, options, out);
}

Tensor cached_attention(const Tensor& q, std::span<const CachedSequence> sequences, const AttentionOptions& options) {
  Tensor out = at::empty(q.sizes(), at::kFloat);
  cached_attention_into(q, sequences, options, out);
  return out;
}

void cached_attention_into(const Tensor& q, std::span<const CachedSequence> sequences, const AttentionOptions& options, Tensor& out) {
  if (sequences.empty()) return;
  const CacheLayout& layout = sequences.front().pages->layout;
  const Tensor queries = checked_float(q, "query");
  FRUGAL_ASSERT(queries.dim() == 3 && out.numel() == queries.numel() && queries.size(2) == layout.dim && queries.size(1) % layout.kv_heads == 0);
  const int64_t width = queries.size(1) * queries.size(2);
  std::vector<int64_t> positions(static_cast<size_t>(queries.size(0)));
  std::vector<const void*> addresses;  // of the keys' and then the values' pages of each sequence
  const auto pages_of = [&](const CachedSequence& sequence) { return static_cast<size_t>((sequence.length + layout.page_size - 1) / layout.page_size); };
  for (const CachedSequence& sequence : sequences) {
    FRUGAL_ASSERT(sequence.count <= sequence.length && sequence.begin + sequence.count <= queries.size(0));
    FRUGAL_ASSERT(sequence.pages->layout == layout && sequence.blocks.size() >= pages_of(sequence));
    for (int64_t i = 0; i < sequence.count; ++i) positions[static_cast<size_t>(sequence.begin + i)] = sequence.length - sequence.count + i;
    for (const CachePart part : {CachePart::keys, CachePart::values}) {
      for (const int32_t block : sequence.blocks.first(pages_of(sequence))) addresses.push_back(sequence.pages->page(part, block));
    }
  }
  std::vector<kernels::AttentionSequence> rows;
  const void* const* next = addresses.data();
  for (const CachedSequence& sequence : sequences) {
    rows.push_back({.q = queries.const_data_ptr<float>() + sequence.begin * width,
                    .out = out.mutable_data_ptr<float>() + sequence.begin * width,
                    .rows = sequence.count,
                    .positions = positions.data() + sequence.begin,
                    .key_pages = next,
                    .value_pages = next + pages_of(sequence),
                    .length = sequence.length});
    next += 2 * pages_of(sequence);
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

void write_cache(CachePart part, const CachePages& pages, std::span<const int32_t> blocks, const Tensor& x, int64_t begin, int64_t count, int64_t entry) {
  const CacheLayout& layout = pages.layout;
  const Tensor source = checked_float(x, "keys or values");
  FRUGAL_ASSERT(source.dim() == 3 && source.size(1) == layout.kv_heads && source.size(2) == layout.dim && begin >= 0 && begin + count <= source.size(0));
  FRUGAL_ASSERT(entry >= 0 && entry + count <= static_cast<int64_t>(blocks.size()) * layout.page_size);
  const float* rows = source.const_data_ptr<float>() + begin * layout.kv_heads * layout.dim;
  for (const int64_t end = entry + count; entry < end;) {
    const int64_t offset = entry % layout.page_size, some = std::min(layout.page_size - offset, end - entry);
    kernels::write_cache(part, layout, rows, some, pages.page(part, blocks[static_cast<size_t>(entry / layout.page_size)]), offset);
    rows += some * layout.kv_heads * layout.dim;
    entry += some;
  }
}

}  // namespace frugal::ops
