#include "text/grammar/masks.h"

#include <algorithm>

namespace frugal::text::grammar {

// The first cell below the part of the stack that a mask is kept for.
CellId Masks::context_of(CellId id) const {
  constexpr int kMaxFrames = 32;
  constexpr uint32_t kNone = kUnlimited;
  uint32_t group = kNone;
  for (int frames = 0; id > kBottomCell && frames < kMaxFrames; ++frames) {
    const uint32_t own = program_->nodes[machine_->cell(id).node].group;
    if (group == kNone) {
      if (!program_->short_groups[own]) group = own;
    } else if (own != group) {
      break;
    }
    id = machine_->cell(id).below;
  }
  return id;
}

// The cells from `id` down to the context. No token has as many bytes as the counters that are cut off here.
void Masks::describe(CellId id, CellId context, std::string& key) const {
  const auto limit = static_cast<uint32_t>(tokens_->longest());
  for (; id != context; id = machine_->cell(id).below) {
    const Cell& cell = machine_->cell(id);
    uint32_t part[3] = {cell.node, cell.min, cell.max};
    if (program_->nodes[cell.node].kind == NodeKind::repeat) {
      part[1] = std::min(part[1], limit + 1);
      if (part[2] > limit) part[2] = kUnlimited;
    }
    key.append(reinterpret_cast<const char*>(part), sizeof(part));
  }
  key.append(4, '\xFF');  // no node
}

// The same part of a stack, with the bottom in place of the context.
CellId Masks::on_bottom(CellId id, CellId context) {
  std::vector<CellId> part;
  for (; id != context; id = machine_->cell(id).below) part.push_back(id);
  CellId below = kBottomCell;
  const auto limit = static_cast<uint32_t>(tokens_->longest());
  for (; !part.empty(); part.pop_back()) {
    Cell cell = machine_->cell(part.back());
    if (program_->nodes[cell.node].kind == NodeKind::repeat) {
      cell.min = std::min(cell.min, limit + 1);
      if (cell.max > limit) cell.max = kUnlimited;
    }
    cell.below = below;
    below = machine_->intern(cell);
  }
  return below;
}

const Masks::Mask& Masks::mask_of(std::span<const CellId> cells, CellId context) {
  std::string key;
  for (const CellId cell : cells) describe(cell, context, key);
  if (const auto it = known_.find(key); it != known_.end()) return it->second;
  Mask mask;
  mask.bits.resize((static_cast<size_t>(tokens_->size()) + 31) / 32);
  std::vector<CellId> parts;
  for (const CellId cell : cells) parts.push_back(on_bottom(cell, context));
  const auto nodes = tokens_->nodes();
  walk(machine_->state_of(std::move(parts)), 1, nodes[0].end, mask.bits, &mask.unfinished);
  const size_t bytes = key.size() + 4 * (mask.bits.size() + mask.unfinished.size()) + sizeof(Mask);
  if (known_bytes_ + bytes > kMaxBytes) {
    known_.clear();
    known_bytes_ = 0;
  }
  known_bytes_ += bytes;
  return known_[std::move(key)] = std::move(mask);
}

// Over the trie nodes first..end, all below one node: sets the bits of tokens that `state` allows.
void Masks::walk(StateId state, uint32_t first, uint32_t end, std::span<uint32_t> bits, std::vector<uint32_t>* unfinished) {
  if (first >= end) return;
  const std::span<const TokenBytes::TrieNode> nodes = tokens_->nodes();
  const std::span<const int32_t> ids = tokens_->token_ids();
  path_.resize(tokens_->longest() + 1);
  path_[nodes[first].depth - 1u] = state;
  for (uint32_t i = first; i < end;) {
    const TokenBytes::TrieNode& node = nodes[i];
    const StateId next = machine_->step(path_[node.depth - 1u], node.byte);
    if (next == kDeadState) {
      i = node.end;
      continue;
    }
    path_[node.depth] = next;
    const uint32_t last_token = nodes[i + 1].first_token;
    for (uint32_t token = node.first_token; token < last_token; ++token) {
      const auto id = static_cast<uint32_t>(ids[token]);
      bits[id / 32] |= 1u << id % 32;
    }
    if (unfinished && machine_->has_bottom(next) && node.end > i + 1) unfinished->push_back(i);
    ++i;
  }
}

void Masks::add_allowed(StateId state, std::span<uint32_t> bits) {
  std::vector<std::pair<CellId, CellId>> by_context;  // context, cell
  for (const CellId cell : machine_->cells_of(state)) {
    if (cell > kBottomCell) by_context.emplace_back(context_of(cell), cell);
  }
  std::sort(by_context.begin(), by_context.end());
  std::vector<CellId> cells;
  for (size_t i = 0; i < by_context.size();) {
    const CellId context = by_context[i].first;
    cells.clear();
    for (; i < by_context.size() && by_context[i].first == context; ++i) cells.push_back(by_context[i].second);
    const Mask& mask = mask_of(cells, context);
    for (size_t word = 0; word < mask.bits.size(); ++word) bits[word] |= mask.bits[word];
    if (mask.unfinished.empty() || context == kEndCell) continue;
    const StateId below = machine_->state_below(context);
    const auto nodes = tokens_->nodes();
    for (const uint32_t at : mask.unfinished) walk(below, at + 1, nodes[at].end, bits, nullptr);
  }
}

}  // namespace frugal::text::grammar
