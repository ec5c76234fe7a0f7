// What every grammar is compiled to: a graph of nodes over bytes, free of dead ends, empty loops and left recursion.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <string>
#include <vector>

namespace frugal::text::grammar {

using NodeId = uint32_t;
using ByteSet = std::bitset<256>;
constexpr uint32_t kUnlimited = 0xFFFFFFFF;

enum class NodeKind : uint8_t { never, empty, bytes, literal, sequence, alternatives, reference, repeat };

struct Node {
  NodeKind kind = NodeKind::never;
  uint32_t group = 0;         // the rule or JSON text that the node belongs to: masks are cached for each
  uint32_t first = 0;         // bytes: index of the set; literal: offset; sequence, reference, repeat: node; alternatives: offset into children
  uint32_t second = 0;        // literal: length; sequence: what follows `first`; alternatives: how many
  uint32_t min = 0, max = 0;  // repeat; max may be kUnlimited

  friend bool operator==(const Node&, const Node&) = default;
};

struct Program {
  std::vector<Node> nodes = {};
  std::vector<ByteSet> byte_sets = {};
  std::string literals = {};
  std::vector<NodeId> children = {};
  NodeId root = 0;
  // Bytes that no set and no literal tells apart are one class.
  std::array<uint8_t, 256> class_of = {};
  std::vector<uint8_t> byte_of_class = {};  // one byte of each
  std::vector<uint8_t> short_groups = {};   // group: its texts have at most kShortText bytes

  static constexpr uint32_t kShortText = 16;
};

}  // namespace frugal::text::grammar
