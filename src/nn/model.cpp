#include "nn/model.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/progress.h"
#include "base/team.h"
#include "nn/sharing.h"

namespace frugal::nn {

Batch Batch::single(std::span<const int32_t> tokens, SequenceState* state) {
  return {{tokens.begin(), tokens.end()}, {{0, static_cast<int64_t>(tokens.size()), state}}};
}

Batch Batch::equal_parts(std::span<const int32_t> tokens, int64_t length) {
  Batch batch{{tokens.begin(), tokens.end()}, {}};
  const auto total = static_cast<int64_t>(tokens.size());
  for (int64_t begin = 0; begin < total; begin += length) batch.sequences.push_back({begin, std::min(length, total - begin), nullptr});
  return batch;
}

Tensor Model::embed(std::span<const int32_t> tokens) const {
  Tensor ids = at::empty({static_cast<int64_t>(tokens.size())}, at::kLong);
  std::vector<int64_t> places, which;  // of virtual tokens
  for (size_t i = 0; i < tokens.size(); ++i) {
    const int64_t beyond = tokens[i] - spec.vocab;
    if (tokens[i] < 0 || beyond >= virtual_tokens.count) {
      fail(ErrorKind::invalid_input, "token id {} at position {} is outside the vocabulary of {}", tokens[i], i, spec.vocab);
    }
    ids.mutable_data_ptr<int64_t>()[i] = beyond < 0 ? tokens[i] : 0;
    if (beyond < 0) continue;
    places.push_back(static_cast<int64_t>(i));
    which.push_back(beyond);
  }
  Tensor rows = embedding->rows(ids);
  if (spec.embedding_scale != 1) rows = rows * spec.embedding_scale;
  if (places.empty()) return rows;
  const Tensor at_places = at::tensor(places, at::kLong);
  if (!virtual_tokens.rows.defined()) return rows.index_fill(0, at_places, 0);
  return rows.index_copy(0, at_places, virtual_tokens.rows.index_select(0, at::tensor(which, at::kLong)));
}

std::vector<int32_t> Model::virtual_ids() const {
  std::vector<int32_t> ids(static_cast<size_t>(virtual_tokens.count));
  std::iota(ids.begin(), ids.end(), static_cast<int32_t>(spec.vocab));
  return ids;
}

std::optional<Model::Completed> Model::completed(const Batch& batch) const {
  const std::vector<int32_t> ids = virtual_ids();
  if (ids.empty() || std::ranges::all_of(batch.sequences, [](const SequenceSlice& s) { return s.state != nullptr; })) return {};
  Completed result;
  std::vector<int64_t> rows;
  for (SequenceSlice slice : batch.sequences) {
    const auto first = batch.tokens.begin() + slice.begin;
    const int64_t before = slice.state ? 0 : virtual_tokens.count;
    slice.begin = std::ssize(result.batch.tokens);
    if (!slice.state) result.batch.tokens.insert(result.batch.tokens.end(), ids.begin(), ids.end());
    result.batch.tokens.insert(result.batch.tokens.end(), first, first + slice.count);
    for (int64_t row = 0; row < slice.count; ++row) rows.push_back(slice.begin + before + row);
    slice.count += before;
    result.batch.sequences.push_back(slice);
  }
  result.rows = at::tensor(rows, at::kLong);
  return result;
}

Tensor Model::logits(const Tensor& normed) const {
  const Tensor raw = head.forward(Activation(normed)).to(at::kFloat);
  return spec.logit_softcap > 0 ? at::tanh(raw / spec.logit_softcap) * spec.logit_softcap : raw;
}

Tensor Model::positions(std::span<const SequenceSlice> sequences) {
  std::vector<int64_t> all;
  for (const SequenceSlice& slice : sequences) {
    const int64_t start = slice.state ? slice.state->length() : 0;
    for (int64_t i = 0; i < slice.count; ++i) all.push_back(start + i);
  }
  return at::tensor(all);
}

ForwardResult Model::forward(const Batch& batch, const ForwardOptions& options) const {
  if (batch.tokens.empty()) fail(ErrorKind::invalid_input, "an empty batch has nothing to compute");
  // Packed, all that is heavy runs on own kernels; otherwise on the BLAS, which wants the team for itself.
  if (execution_ != Execution::packed) return run(batch, options);
  ForwardResult result;
  hold_team([&] { result = run(batch, options); });
  return result;
}

ForwardResult Model::run(const Batch& given, const ForwardOptions& options) const {
  const std::optional<Completed> with_virtual = completed(given);
  const Batch& batch = with_virtual ? with_virtual->batch : given;
  const Tensor where = positions(batch.sequences);
  FRUGAL_ASSERT(where.size(0) == static_cast<int64_t>(batch.tokens.size()));
  for (const SequenceSlice& slice : batch.sequences) {
    if (slice.state && slice.count > 0 && slice.state->length() < virtual_tokens.count) {
      FRUGAL_ASSERT(batch.tokens[static_cast<size_t>(slice.begin)] == spec.vocab + slice.state->length());  // it begins with virtual_ids()
    }
    if (slice.state && !slice.state->reserve(slice.count)) {
      fail(ErrorKind::out_of_memory, "the KV cache has no blocks left for {} more positions of a sequence of {}", slice.count, slice.state->length());
    }
  }
  const bool serving = execution_ == Execution::packed && !at::GradMode::is_enabled();
  Workspace workspace;
  const auto all = std::span(batch.sequences);
  const auto through = [&](Tensor rows, std::span<const SequenceSlice> sequences, int64_t begin, int64_t end) {
    const Tensor places = rows.size(0) == where.size(0) ? where : where.narrow(0, 0, rows.size(0));
    for (int64_t i = begin; i < end; ++i) {
      stop_point();
      const Block& block = blocks[static_cast<size_t>(i)];
      if (serving)
        block.serve(rows, sequences, places, workspace);
      else
        rows = block.forward(rows, sequences, places);
    }
    if (serving) workspace.finish(rows);
    return rows;
  };
  const auto depth = std::ssize(blocks);
  const auto passing = all.subspan(static_cast<size_t>(std::ranges::find_if(all, [](const SequenceSlice& s) { return s.until_block >= 0; }) - all.begin()));
  const auto others = all.first(all.size() - passing.size());
  const int64_t until = passing.empty() ? depth : passing.front().until_block;
  Tensor hidden, passed;
  if (passing.empty()) {
    hidden = through(embed(batch.tokens), all, 0, depth);
  } else {
    const int64_t from = passing.front().state->passage.next_block, rows = passing.front().begin;
    std::vector<Tensor> joined;
    if (rows > 0) joined.push_back(through(embed(std::span(batch.tokens).first(static_cast<size_t>(rows))), others, 0, from));
    for (const SequenceSlice& slice : passing) {
      const Passage& passage = slice.state->passage;
      FRUGAL_ASSERT(passage.next_block == from && slice.until_block == until && from < until && until <= depth);
      joined.push_back(from > 0 ? passage.hidden : embed(std::span(batch.tokens).subspan(static_cast<size_t>(slice.begin), static_cast<size_t>(slice.count))));
      FRUGAL_ASSERT(joined.back().size(0) == slice.count);
    }
    hidden = through(at::cat(joined), all, from, until);
    if (until < depth) {
      passed = hidden.narrow(0, rows, hidden.size(0) - rows);
      hidden = through(hidden.narrow(0, 0, rows), others, rows > 0 ? until : depth, depth);
    }
  }
  const auto complete = until < depth ? others : all;
  ForwardResult result;
  using Logits = ForwardOptions::Logits;
  if (options.logits == Logits::last || options.logits == Logits::chosen) {
    std::vector<int64_t> rows;
    for (const SequenceSlice& slice : complete) {
      const int64_t wanted = options.logits == Logits::last ? 1 : slice.logit_rows;
      for (int64_t row = slice.count - wanted; row < slice.count; ++row) rows.push_back(slice.begin + row);
    }
    result.hidden = final_norm.forward(hidden.index_select(0, at::tensor(rows, at::kLong)));
  } else {
    result.hidden = final_norm.forward(with_virtual ? hidden.index_select(0, with_virtual->rows) : hidden);
  }
  if (options.logits != Logits::none && result.hidden.size(0) > 0) result.logits = logits(result.hidden);
  std::vector<Passage> passages;
  if (passed.defined()) {
    for (const SequenceSlice& slice : passing) passages.push_back({passed.narrow(0, slice.begin - passing.front().begin, slice.count), until});
  }
  // All states or none: what may throw has been done.
  for (const SequenceSlice& slice : complete) {
    if (slice.state) slice.state->advance(slice.count);
  }
  for (size_t i = 0; i < passages.size(); ++i) passing[i].state->passage = std::move(passages[i]);
  return result;
}

void Model::set_execution(Execution execution) {
  execution_ = execution;
  for (Block& block : blocks) block.set_execution(execution);
  head.set_execution(execution);
  // Looking rows up needs no second form: the stored one is decoded row by row. A tied embedding has the head's form.
  if (!spec.tied_embeddings) embedding->set_execution(Execution::stored);
}

void Model::for_each_tensor(const TensorVisitor& visit) {
  embedding->for_each_tensor("model.embed_tokens", visit);
  const Sharing sharing = sharing_of(spec);
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (!sharing.owns(i)) continue;
    for (const auto& [name, norm] : blocks[i].norms()) visit(fmt::format("model.layers.{}.{}.weight", sharing.stored(i), name), norm->weight);
    for (const auto& [name, scale] : blocks[i].branch_scales()) visit(fmt::format("model.layers.{}.{}", sharing.stored(i), name), *scale);
    for (Linear* linear : own_linears(blocks[i], i, sharing)) linear->for_each_tensor(visit);
  }
  if (final_norm.weight.defined()) visit("model.norm.weight", final_norm.weight);
  if (!spec.tied_embeddings) head.for_each_tensor(visit);
}

void Model::for_each_linear(const std::function<void(Linear&)>& visit) {
  const Sharing sharing = sharing_of(spec);
  for (size_t i = 0; i < blocks.size(); ++i) {
    for (Linear* linear : own_linears(blocks[i], i, sharing)) visit(*linear);
  }
  if (!spec.tied_embeddings) visit(head);
}

uint64_t Model::parameters() const {
  const auto count = [](const LinearKind& kind) { return static_cast<uint64_t>(kind.out_features() * kind.in_features()); };
  uint64_t total = count(*embedding) + (final_norm.weight.defined() ? static_cast<uint64_t>(final_norm.weight.numel()) : 0);
  auto& self = const_cast<Model&>(*this);
  self.for_each_linear([&](Linear& linear) {
    total += count(*linear.kinds().front());
    if (linear.bias().defined()) total += static_cast<uint64_t>(linear.bias().numel());
  });
  const Sharing sharing = sharing_of(spec);
  for (size_t i = 0; i < self.blocks.size(); ++i) {
    if (!sharing.owns(i)) continue;
    for (const auto& [name, norm] : self.blocks[i].norms()) total += static_cast<uint64_t>(norm->weight.numel());
    total += self.blocks[i].branch_scales().size();
  }
  return total;
}

uint64_t Model::storage_bytes() const {
  uint64_t total = embedding->storage_bytes() + (final_norm.weight.defined() ? static_cast<uint64_t>(final_norm.weight.nbytes()) : 0);
  const Sharing sharing = sharing_of(spec);
  auto& self = const_cast<Model&>(*this);
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (!sharing.owns(i)) continue;
    for (const Linear* linear : own_linears(self.blocks[i], i, sharing)) total += linear->storage_bytes();
    for (const auto& [name, norm] : self.blocks[i].norms()) total += static_cast<uint64_t>(norm->weight.nbytes());
    for (const auto& [name, scale] : self.blocks[i].branch_scales()) total += static_cast<uint64_t>(scale->nbytes());
  }
  if (!spec.tied_embeddings) total += head.storage_bytes();
  return total;
}

}  // namespace frugal::nn
