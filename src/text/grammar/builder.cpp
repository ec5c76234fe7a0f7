#include "text/grammar/builder.h"

#include <algorithm>
#include <map>

#include "base/error.h"

namespace frugal::text::grammar {

namespace {

struct ByteRange {
  uint8_t first, last;
  friend auto operator<=>(const ByteRange&, const ByteRange&) = default;
};
using ByteRanges = std::vector<ByteRange>;

int utf8_length(uint32_t c) { return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4; }

std::array<uint8_t, 4> utf8_bytes(uint32_t c) {
  switch (utf8_length(c)) {
    case 1: return {static_cast<uint8_t>(c)};
    case 2: return {static_cast<uint8_t>(0xC0 | c >> 6), static_cast<uint8_t>(0x80 | (c & 0x3F))};
    case 3: return {static_cast<uint8_t>(0xE0 | c >> 12), static_cast<uint8_t>(0x80 | (c >> 6 & 0x3F)), static_cast<uint8_t>(0x80 | (c & 0x3F))};
    default:
      return {static_cast<uint8_t>(0xF0 | c >> 18), static_cast<uint8_t>(0x80 | (c >> 12 & 0x3F)), static_cast<uint8_t>(0x80 | (c >> 6 & 0x3F)),
              static_cast<uint8_t>(0x80 | (c & 0x3F))};
  }
}

// The code points first..last, all of one length, as products of byte ranges.
void split_utf8(uint32_t first, uint32_t last, std::vector<ByteRanges>& out) {
  const int length = utf8_length(first);
  for (int i = 1; i < length; ++i) {
    const uint32_t mask = (1u << (6 * i)) - 1;
    if ((first & ~mask) == (last & ~mask)) continue;
    if ((first & mask) != 0) {
      split_utf8(first, first | mask, out);
      return split_utf8((first | mask) + 1, last, out);
    }
    if ((last & mask) != mask) {
      split_utf8(first, (last & ~mask) - 1, out);
      return split_utf8(last & ~mask, last, out);
    }
  }
  const auto low = utf8_bytes(first), high = utf8_bytes(last);
  ByteRanges ranges;
  for (size_t i = 0; i < static_cast<size_t>(length); ++i) ranges.push_back({low[i], high[i]});
  out.push_back(std::move(ranges));
}

uint64_t hash_of(const Node& node) {
  uint64_t hash = static_cast<uint64_t>(node.kind);
  for (const uint32_t part : {node.group, node.first, node.second, node.min, node.max}) hash = (hash ^ part) * 0x9E3779B97F4A7C15 ^ hash >> 29;
  return hash;
}

}  // namespace

Builder::Builder() {
  nodes_.push_back({});
  nodes_.push_back({.kind = NodeKind::empty});
}

NodeId Builder::make(const Node& node) {
  const bool shared = node.kind != NodeKind::reference && node.kind != NodeKind::alternatives && node.kind != NodeKind::literal;
  std::vector<NodeId>* same = shared ? &known_[hash_of(node)] : nullptr;
  if (same) {
    for (const NodeId id : *same) {
      if (nodes_[id] == node) return id;
    }
  }
  if (nodes_.size() >= kMaxNodes) fail(ErrorKind::invalid_input, "grammar: needs more than {} nodes", kMaxNodes);
  nodes_.push_back(node);
  const auto id = static_cast<NodeId>(nodes_.size() - 1);
  if (same) same->push_back(id);
  return id;
}

NodeId Builder::bytes(const ByteSet& set) {
  if (set.none()) return never();
  const auto [it, fresh] = known_sets_.try_emplace(set.to_string(), static_cast<uint32_t>(byte_sets_.size()));
  if (fresh) byte_sets_.push_back(set);
  return make({.kind = NodeKind::bytes, .group = group_, .first = it->second});
}

NodeId Builder::byte(char c) {
  ByteSet set;
  set.set(static_cast<uint8_t>(c));
  return bytes(set);
}

NodeId Builder::literal(std::string_view text) {
  if (text.empty()) return empty();
  if (text.size() == 1) return byte(text[0]);
  const auto offset = static_cast<uint32_t>(literals_.size());
  literals_ += text;
  return make({.kind = NodeKind::literal, .group = group_, .first = offset, .second = static_cast<uint32_t>(text.size())});
}

NodeId Builder::sequence(NodeId first, NodeId second) {
  if (is_never(first) || is_never(second)) return never();
  if (first == empty()) return second;
  if (second == empty()) return first;
  return make({.kind = NodeKind::sequence, .group = group_, .first = first, .second = second});
}

NodeId Builder::sequence(const std::vector<NodeId>& parts) {
  NodeId rest = empty();
  for (size_t i = parts.size(); i-- > 0;) rest = sequence(parts[i], rest);
  return rest;
}

NodeId Builder::alternatives(std::vector<NodeId> parts) {
  std::vector<NodeId> kept;
  for (const NodeId part : parts) {
    if (!is_never(part) && (parts.size() > 64 || std::find(kept.begin(), kept.end(), part) == kept.end())) kept.push_back(part);
  }
  if (kept.empty()) return never();
  if (kept.size() == 1) return kept[0];
  const auto offset = static_cast<uint32_t>(children_.size());
  children_.insert(children_.end(), kept.begin(), kept.end());
  if (children_.size() > 4 * kMaxNodes) fail(ErrorKind::invalid_input, "grammar: needs more than {} alternatives", 4 * kMaxNodes);
  return make({.kind = NodeKind::alternatives, .group = group_, .first = offset, .second = static_cast<uint32_t>(kept.size())});
}

NodeId Builder::repeat(NodeId body, uint32_t min, uint32_t max) {
  if (max == 0) return empty();
  if (is_never(body)) return min == 0 ? empty() : never();
  if (body == empty() || (min == 1 && max == 1)) return body;
  return make({.kind = NodeKind::repeat, .group = group_, .first = body, .min = min, .max = max});
}

NodeId Builder::choices(std::vector<std::string> texts) {
  std::sort(texts.begin(), texts.end());
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  return texts.empty() ? never() : trie_of(texts, 0, texts.size(), 0);
}

// What follows after `depth` bytes that texts first..last share. A level for each branching: at most 725 in 256 KiB of texts.
NodeId Builder::trie_of(const std::vector<std::string>& texts, size_t first, size_t last, size_t depth) {
  const std::string &low = texts[first], &high = texts[last - 1];
  size_t shared = depth;
  while (shared < low.size() && shared < high.size() && low[shared] == high[shared]) ++shared;
  const NodeId prefix = literal(std::string_view(low).substr(depth, shared - depth));
  std::vector<NodeId> parts;
  if (low.size() == shared) {
    parts.push_back(empty());
    ++first;
  }
  while (first < last) {
    const char c = texts[first][shared];
    size_t end = first + 1;
    while (end < last && texts[end][shared] == c) ++end;
    parts.push_back(trie_of(texts, first, end, shared));
    first = end;
  }
  return sequence(prefix, alternatives(std::move(parts)));
}

NodeId Builder::reference() { return make({.kind = NodeKind::reference, .group = group_}); }

void Builder::set_target(NodeId reference, NodeId target) { nodes_[reference].first = target; }

NodeId Builder::add(const Program& program) {
  const auto first = static_cast<NodeId>(nodes_.size());
  if (nodes_.size() + program.nodes.size() > kMaxNodes) fail(ErrorKind::invalid_input, "grammar: needs more than {} nodes", kMaxNodes);
  const auto sets = static_cast<uint32_t>(byte_sets_.size()), literals = static_cast<uint32_t>(literals_.size()),
             children = static_cast<uint32_t>(children_.size()), groups = groups_ + 1;
  for (Node node : program.nodes) {
    node.group += groups;
    groups_ = std::max(groups_, node.group);
    switch (node.kind) {
      case NodeKind::bytes: node.first += sets; break;
      case NodeKind::literal: node.first += literals; break;
      case NodeKind::alternatives: node.first += children; break;
      case NodeKind::sequence: node.second += first; [[fallthrough]];
      case NodeKind::reference:
      case NodeKind::repeat: node.first += first; break;
      case NodeKind::never:
      case NodeKind::empty: break;
    }
    nodes_.push_back(node);
  }
  byte_sets_.insert(byte_sets_.end(), program.byte_sets.begin(), program.byte_sets.end());
  literals_ += program.literals;
  for (const NodeId child : program.children) children_.push_back(first + child);
  return first;
}

NodeId Builder::character(const CharSet& set) {
  const auto [known, fresh] = known_characters_.try_emplace({group_, set}, 0);
  if (!fresh) return known->second;
  std::vector<ByteRanges> products;
  for (const CharRange& range : set.ranges()) {
    constexpr CharRange kParts[] = {{0, 0x7F}, {0x80, 0x7FF}, {0x800, 0xD7FF}, {0xE000, 0xFFFF}, {0x10000, kLastChar}};
    for (const CharRange& part : kParts) {
      const uint32_t first = std::max(range.first, part.first), last = std::min(range.last, part.last);
      if (first <= last) split_utf8(first, last, products);
    }
  }
  std::map<ByteRanges, ByteSet> first_bytes;  // by what follows
  for (const ByteRanges& product : products) {
    ByteSet& firsts = first_bytes[ByteRanges(product.begin() + 1, product.end())];
    for (int b = product[0].first; b <= product[0].last; ++b) firsts.set(static_cast<size_t>(b));
  }
  std::vector<NodeId> parts;
  for (const auto& [tail, firsts] : first_bytes) {
    std::vector<NodeId> steps = {bytes(firsts)};
    for (const ByteRange& range : tail) {
      ByteSet following;
      for (int b = range.first; b <= range.last; ++b) following.set(static_cast<size_t>(b));
      steps.push_back(bytes(following));
    }
    parts.push_back(sequence(steps));
  }
  return known->second = alternatives(std::move(parts));
}

}  // namespace frugal::text::grammar
