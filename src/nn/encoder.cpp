#include "nn/encoder.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <cmath>

#include "base/error.h"
#include "base/progress.h"
#include "base/team.h"

namespace frugal::nn {
namespace {

std::vector<RowRange> ranges_of(std::span<const EncoderText> texts) {
  std::vector<RowRange> ranges;
  int64_t begin = 0;
  for (const EncoderText& text : texts) {
    ranges.push_back({begin, std::ssize(text.tokens)});
    begin += std::ssize(text.tokens);
  }
  return ranges;
}

// In place and row by row: ATen computes the last few numbers of a tensor by other instructions than the rest, and which are the last
// must not depend on the batch.
void activate(Tensor& x, EncoderActivation activation) {
  parallel_for(x.size(0), 4, [&](int64_t begin, int64_t end) {
    const c10::InferenceMode inference;
    for (int64_t i = begin; i < end; ++i) {
      Tensor row = x.select(0, i);
      if (activation == EncoderActivation::relu)
        at::relu_(row);
      else
        at::gelu_(row, activation == EncoderActivation::gelu ? "none" : "tanh");
    }
  });
}

}  // namespace

std::string_view to_string(Pooling pooling) {
  switch (pooling) {
    case Pooling::mean: return "mean";
    case Pooling::cls: return "cls";
    case Pooling::last: return "last";
  }
  return "";
}

Tensor LayerNorm::forward(const Tensor& x) const { return at::layer_norm(x, {x.size(-1)}, weight, bias, eps); }

Tensor Encoder::embed(std::span<const EncoderText> texts) const {
  int64_t count = 0;
  for (const EncoderText& text : texts) count += std::ssize(text.tokens);
  Tensor ids = at::empty({count}, at::kLong), where = at::empty({count}, at::kLong), types = at::empty({count}, at::kLong);
  int64_t row = 0;
  for (const EncoderText& text : texts) {
    const int64_t length = std::ssize(text.tokens);
    if (length == 0) fail(ErrorKind::invalid_input, "a text has no tokens");
    if (length > spec.positions) fail(ErrorKind::invalid_input, "a text has {} tokens, the model has {} positions", length, spec.positions);
    if (text.second >= 0 && spec.token_types < 2) fail(ErrorKind::invalid_input, "the model has no token type for the second text of a pair");
    for (int64_t i = 0; i < length; ++i, ++row) {
      const int32_t id = text.tokens[static_cast<size_t>(i)];
      if (id < 0 || id >= spec.vocab) fail(ErrorKind::invalid_input, "token id {} at position {} is outside the vocabulary of {}", id, i, spec.vocab);
      ids.mutable_data_ptr<int64_t>()[row] = id;
      where.mutable_data_ptr<int64_t>()[row] = i;
      types.mutable_data_ptr<int64_t>()[row] = text.second >= 0 && i >= text.second ? 1 : 0;
    }
  }
  return embedding_norm.forward(words->rows(ids) + token_types->rows(types) + positions->rows(where));
}

Tensor Encoder::attend(const EncoderBlock& block, const Tensor& x, std::span<const RowRange> texts) const {
  const int64_t tokens = x.size(0), width = spec.hidden / spec.heads;
  const Activation input(x);
  const auto heads = [&](const Linear& linear) { return linear.forward(input).view({tokens, spec.heads, width}).transpose(0, 1).unsqueeze(0); };
  const Tensor q = heads(block.query), k = heads(block.key), v = heads(block.value);
  Tensor out = at::empty({tokens, spec.heads, width}, at::kFloat);
  // Where texts are few, the members of the team share their heads, of which each is computed by itself.
  const int64_t parts = std::ssize(texts) >= team_size() ? 1 : std::min<int64_t>(team_size(), spec.heads);
  parallel_for(std::ssize(texts) * parts, 1, [&](int64_t begin, int64_t end) {
    const c10::InferenceMode inference;
    for (int64_t i = begin; i < end; ++i) {
      const RowRange& rows = texts[static_cast<size_t>(i / parts)];
      const int64_t first = spec.heads * (i % parts) / parts, last = spec.heads * (i % parts + 1) / parts;
      const auto part = [&](const Tensor& t) { return t.narrow(1, first, last - first).narrow(2, rows.begin, rows.count); };
      const Tensor one = at::scaled_dot_product_attention(part(q), part(k), part(v));
      out.narrow(0, rows.begin, rows.count).narrow(1, first, last - first).copy_(one.squeeze(0).transpose(0, 1));
    }
  });
  return block.output.forward(Activation(out.view({tokens, spec.hidden})));
}

Tensor Encoder::run(std::span<const EncoderText> texts) const {
  const c10::InferenceMode inference;
  const std::vector<RowRange> ranges = ranges_of(texts);
  Tensor x = embed(texts);
  for (const EncoderBlock& block : blocks) {
    stop_point();
    x = block.attention_norm.forward(x + attend(block, x, ranges));
    Tensor inner = block.up.forward(Activation(x));
    activate(inner, spec.activation);
    x = block.mlp_norm.forward(x + block.down.forward(Activation(inner)));
  }
  return x;
}

Tensor Encoder::forward(std::span<const EncoderText> texts) const {
  if (texts.empty()) fail(ErrorKind::invalid_input, "an empty batch has nothing to compute");
  // As in Model: packed, what is heavy runs on own kernels, otherwise on the BLAS, which wants the team for itself.
  if (execution_ != Execution::packed) return run(texts);
  Tensor result;
  hold_team([&] { result = run(texts); });
  return result;
}

Tensor Encoder::scores(const Tensor& hidden, std::span<const RowRange> texts) const {
  FRUGAL_ASSERT(spec.scores_pairs);
  const c10::InferenceMode inference;
  return classifier.forward(Activation(at::tanh(pooler.forward(Activation(pool(hidden, texts, Pooling::cls))))));
}

void Encoder::set_execution(Execution execution) {
  execution_ = execution;
  for (EncoderBlock& block : blocks) {
    for (Linear* linear : {&block.query, &block.key, &block.value, &block.output, &block.up, &block.down}) linear->set_execution(execution);
  }
  for (Linear* linear : {&pooler, &classifier}) {
    if (*linear) linear->set_execution(execution);
  }
}

uint64_t Encoder::parameters() const {
  uint64_t total = 0;
  for (const auto& table : {words, positions, token_types}) total += static_cast<uint64_t>(table->out_features() * table->in_features());
  const auto add_norm = [&](const LayerNorm& norm) { total += static_cast<uint64_t>(norm.weight.numel() + norm.bias.numel()); };
  const auto add_linear = [&](const Linear& linear) {
    if (linear) total += static_cast<uint64_t>(linear.out_features() * (linear.in_features() + 1));
  };
  add_norm(embedding_norm);
  for (const EncoderBlock& block : blocks) {
    for (const Linear* linear : {&block.query, &block.key, &block.value, &block.output, &block.up, &block.down}) add_linear(*linear);
    add_norm(block.attention_norm);
    add_norm(block.mlp_norm);
  }
  add_linear(pooler);
  add_linear(classifier);
  return total;
}

Tensor pool(const Tensor& hidden, std::span<const RowRange> texts, Pooling pooling) {
  std::vector<Tensor> vectors;
  for (const RowRange& rows : texts) {
    if (pooling == Pooling::mean)
      vectors.push_back(hidden.narrow(0, rows.begin, rows.count).mean(0));
    else
      vectors.push_back(hidden.select(0, pooling == Pooling::cls ? rows.begin : rows.begin + rows.count - 1));
  }
  return at::stack(vectors);
}

Tensor normalized(const Tensor& vectors) { return vectors / vectors.norm(2, -1, /*keepdim=*/true).clamp_min(1e-12); }

}  // namespace frugal::nn
