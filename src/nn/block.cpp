#include <ATen/ATen.h>

#include <algorithm>
#include <tuple>

#include "base/error.h"
#include "base/team.h"
#include "nn/model.h"
#include "nn/rope_table.h"
#include "ops/autocast.h"
#include "ops/into.h"

namespace frugal::nn {

Tensor Norm::forward(const Tensor& x) const { return kind == NormKind::none ? x : ops::rms_norm(x, weight, eps, kind == NormKind::rms_plus_one ? 1.0 : 0.0); }

namespace {

// The residual stream after one half of a block, which gave `out`; `norm` is that half's.
Tensor residual_sum(const BlockSpec& spec, const Tensor& x, const Tensor& out, const Tensor& branch_scale, const Norm& norm) {
  const Tensor sum = (spec.residual_scale == 1 ? x : x * spec.residual_scale) + (branch_scale.defined() ? out * branch_scale : out);
  return spec.norm_after_add ? norm.forward(sum) : sum;
}

}  // namespace

std::string_view to_string(InputPoint point) {
  switch (point) {
    case InputPoint::attention_input: return "attention_input";
    case InputPoint::attention_output: return "attention_output";
    case InputPoint::mlp_input: return "mlp_input";
    case InputPoint::mlp_output: return "mlp_output";
  }
  return "";
}

Tensor Block::forward(const Tensor& hidden, std::span<const SequenceSlice> sequences, const Tensor& positions, const InputTap& tap) const {
  Tensor x = hidden;
  if (query) {
    const Tensor out = attend(spec.norm_after_add ? x : input_norm.forward(x), sequences, positions, tap);
    x = residual_sum(spec, x, spec.post_norms ? attention_output_norm.forward(out) : out, attention_branch_scale, input_norm);
  }
  if (gate) {
    const Tensor out = mlp(spec.norm_after_add ? x : post_attention_norm.forward(x), tap);
    x = residual_sum(spec, x, spec.post_norms ? mlp_output_norm.forward(out) : out, mlp_branch_scale, post_attention_norm);
  }
  return x;
}

Tensor Block::attend(const Tensor& x, std::span<const SequenceSlice> sequences, const Tensor& positions, const InputTap& tap) const {
  const int64_t tokens = x.size(0);
  if (tap) tap(InputPoint::attention_input, x);
  const Activation input(x);
  Tensor q = query.forward(input).view({tokens, spec.heads, spec.head_dim});
  Tensor k = key.forward(input).view({tokens, spec.kv_heads, spec.head_dim});
  Tensor v = value.forward(input).view({tokens, spec.kv_heads, spec.head_dim});
  if (spec.qk_norm) {
    q = query_norm.forward(q);
    k = key_norm.forward(k);
  }
  const std::shared_ptr<RopeTable> table = rope_for(sequences);
  q = ops::rope(q, positions, table->cos(), table->sin());
  k = ops::rope(k, positions, table->cos(), table->sin());
  if (begins_a_sequence(sequences)) std::tie(k, v) = with_prefix(k, v, positions);
  Tensor joined;
  if (ops::wants_gradient({q, k, v}) || ops::activation_type(q) != at::kFloat) {
    std::vector<ops::AttentionRange> ranges;
    for (const SequenceSlice& slice : sequences) {
      FRUGAL_ASSERT(!slice.state);
      ranges.push_back({slice.begin, slice.count});
    }
    joined = ops::attention(q, k, v, ranges, attention_options()).reshape({tokens, spec.heads * spec.head_dim});
  } else {
    joined = at::empty({tokens, spec.heads * spec.head_dim}, at::kFloat);
    attend_sequences(q, k, v, sequences, joined);
  }
  if (spec.sub_norms) joined = attention_sub_norm.forward(joined);
  if (tap) tap(InputPoint::attention_output, joined);
  return output.forward(Activation(joined));
}

std::shared_ptr<RopeTable> Block::rope_for(std::span<const SequenceSlice> sequences) const {
  std::shared_ptr<RopeTable> table = shared_rope_table(spec.rope);
  int64_t longest = 0;
  const bool by_length = spec.rope.scaling == RopeScaling::dynamic || spec.rope.scaling == RopeScaling::longrope;
  for (const SequenceSlice& slice : sequences) {
    longest = std::max(longest, slice.count + (slice.state ? slice.state->length() : 0));
    if (by_length && slice.state) longest = std::max(longest, slice.state->context());
  }
  table->prepare(longest);
  return table;
}

bool Block::begins_a_sequence(std::span<const SequenceSlice> sequences) const {
  if (prefix.count == 0) return false;
  return std::ranges::any_of(sequences, [&](const SequenceSlice& slice) { return !slice.state || slice.state->length() < prefix.count; });
}

std::pair<Tensor, Tensor> Block::with_prefix(const Tensor& k, const Tensor& v, const Tensor& positions) const {
  const auto [keys, values] = prefix.keys_values();
  const Tensor places = at::nonzero(positions < prefix.count).flatten(), which = positions.index_select(0, places);
  return {k.index_copy(0, places, keys.index_select(0, which)), v.index_copy(0, places, values.index_select(0, which))};
}

ops::AttentionOptions Block::attention_options() const { return {spec.attention_scale, spec.sliding_window}; }

void Block::attend_sequences(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const SequenceSlice> sequences, Tensor& out) const {
  for (size_t i = 0; i < sequences.size();) {
    // Neighbours of a kind in one call: those with a state, those without.
    const bool cached = sequences[i].state != nullptr;
    const size_t begin = i;
    while (i < sequences.size() && (sequences[i].state != nullptr) == cached) ++i;
    const std::span<const SequenceSlice> alike = sequences.subspan(begin, i - begin);
    const int64_t first = alike.front().begin, count = alike.back().begin + alike.back().count - first;
    const bool all = count == q.size(0);
    const auto part = [&](const Tensor& rows) { return all ? rows : rows.narrow(0, first, count); };
    Tensor target = part(out);
    if (!cached) {
      std::vector<ops::AttentionRange> ranges;
      for (const SequenceSlice& slice : alike) ranges.push_back({slice.begin - first, slice.count});
      ops::attention_into(part(q), part(k), part(v), ranges, attention_options(), target);
      continue;
    }
    std::vector<ops::CachePages> pages(alike.size());
    std::vector<ops::CachedSequence> caches;
    for (size_t j = 0; j < alike.size(); ++j) {
      const SequenceSlice& slice = alike[j];
      pages[j] = slice.state->pages(spec.state_slot);
      caches.push_back({slice.begin - first, slice.count, &pages[j], slice.state->blocks(), slice.state->length() + slice.count});
    }
    parallel_for(std::ssize(caches), 8, [&](int64_t from, int64_t to) {
      for (const ops::CachedSequence& cache : std::span(caches).subspan(static_cast<size_t>(from), static_cast<size_t>(to - from))) {
        ops::write_cache(ops::CachePart::keys, *cache.pages, cache.blocks, k, first + cache.begin, cache.count, cache.length - cache.count);
        ops::write_cache(ops::CachePart::values, *cache.pages, cache.blocks, v, first + cache.begin, cache.count, cache.length - cache.count);
      }
    });
    ops::cached_attention_into(part(q), caches, attention_options(), target);
  }
}

Tensor Block::mlp(const Tensor& x, const InputTap& tap) const {
  if (tap) tap(InputPoint::mlp_input, x);
  const Activation input(x);
  Tensor inner = ops::gated_activation(gate.forward(input), up.forward(input), spec.mlp == MlpKind::gated_silu ? ops::Gate::silu : ops::Gate::gelu_tanh);
  if (spec.sub_norms) inner = mlp_sub_norm.forward(inner);
  if (tap) tap(InputPoint::mlp_output, inner);
  return down.forward(Activation(inner));
}

std::vector<Linear*> Block::linears() {
  std::vector<Linear*> result;
  for (Linear* linear : {&query, &key, &value, &output, &gate, &up, &down}) {
    if (*linear) result.push_back(linear);
  }
  return result;
}

std::vector<Linear*> Block::linears_at(InputPoint point) {
  std::vector<Linear*> result;
  const auto add = [&](std::initializer_list<Linear*> linears) {
    for (Linear* linear : linears) {
      if (*linear) result.push_back(linear);
    }
  };
  switch (point) {
    case InputPoint::attention_input: add({&query, &key, &value}); break;
    case InputPoint::attention_output: add({&output}); break;
    case InputPoint::mlp_input: add({&gate, &up}); break;
    case InputPoint::mlp_output: add({&down}); break;
  }
  return result;
}

std::vector<std::pair<std::string, Norm*>> Block::norms() {
  std::vector<std::pair<std::string, Norm*>> result;
  if (spec.norm == NormKind::none) return result;
  if (query) result.emplace_back("input_layernorm", &input_norm);
  // Gemma's four norms have other names than Llama's two.
  if (spec.post_norms) {
    result.emplace_back("post_attention_layernorm", &attention_output_norm);
    result.emplace_back("pre_feedforward_layernorm", &post_attention_norm);
    result.emplace_back("post_feedforward_layernorm", &mlp_output_norm);
  } else if (gate) {
    result.emplace_back("post_attention_layernorm", &post_attention_norm);
  }
  if (spec.qk_norm) {
    result.emplace_back("self_attn.q_norm", &query_norm);
    result.emplace_back("self_attn.k_norm", &key_norm);
  }
  if (spec.sub_norms && query) result.emplace_back("self_attn.attn_sub_norm", &attention_sub_norm);
  if (spec.sub_norms && gate) result.emplace_back("mlp.ffn_sub_norm", &mlp_sub_norm);
  return result;
}

std::vector<std::pair<std::string, Tensor*>> Block::branch_scales() {
  std::vector<std::pair<std::string, Tensor*>> result;
  if (spec.branch_scales && query) result.emplace_back("self_attn.branch_scale", &attention_branch_scale);
  if (spec.branch_scales && gate) result.emplace_back("mlp.branch_scale", &mlp_branch_scale);
  return result;
}

void Block::set_execution(Execution execution) {
  for (Linear* linear : linears()) linear->set_execution(execution);
}

uint64_t Block::storage_bytes() const {
  uint64_t bytes = 0;
  auto& self = const_cast<Block&>(*this);  // the lists of members are built once, for both constnesses
  for (const Linear* linear : self.linears()) bytes += linear->storage_bytes();
  for (const auto& [name, norm] : self.norms()) bytes += static_cast<uint64_t>(norm->weight.nbytes());
  for (const auto& [name, scale] : self.branch_scales()) bytes += static_cast<uint64_t>(scale->nbytes());
  return bytes;
}

}  // namespace frugal::nn
