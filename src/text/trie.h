// A byte trie with one hash table for all edges: O(1) a byte to walk, about 24 bytes a node.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace frugal::text {

class Trie {
 public:
  static constexpr int32_t kRoot = 0;
  static constexpr int32_t kNone = -1;

  Trie() : values_(1, kNone), edges_(64, Edge{}) {}

  void insert(std::string_view key, int32_t value) {  // an equal key keeps its first value
    int32_t node = kRoot;
    for (const char c : key) node = child_or_new(node, static_cast<uint8_t>(c));
    if (values_[static_cast<size_t>(node)] == kNone) values_[static_cast<size_t>(node)] = value;
  }

  int32_t child(int32_t node, uint8_t byte) const {
    for (size_t slot = home(node, byte);; slot = (slot + 1) & (edges_.size() - 1)) {
      const Edge& edge = edges_[slot];
      if (edge.child == kNone) return kNone;
      if (edge.parent == node && edge.byte == byte) return edge.child;
    }
  }

  int32_t walk(int32_t node, std::string_view key) const {
    for (const char c : key) {
      if (node == kNone) break;
      node = child(node, static_cast<uint8_t>(c));
    }
    return node;
  }

  int32_t value(int32_t node) const { return values_[static_cast<size_t>(node)]; }  // kNone where no key ends

 private:
  struct Edge {
    int32_t parent = kNone, child = kNone;
    uint8_t byte = 0;
  };

  size_t home(int32_t node, uint8_t byte) const {
    const uint64_t key = static_cast<uint64_t>(node) << 8 | byte;
    return static_cast<size_t>((key * 0x9E3779B97F4A7C15) >> 32) & (edges_.size() - 1);
  }

  void place(const Edge& edge) {
    size_t slot = home(edge.parent, edge.byte);
    while (edges_[slot].child != kNone) slot = (slot + 1) & (edges_.size() - 1);
    edges_[slot] = edge;
  }

  int32_t child_or_new(int32_t node, uint8_t byte) {
    if (const int32_t found = child(node, byte); found != kNone) return found;
    if (values_.size() * 2 > edges_.size()) {
      std::vector<Edge> old(edges_.size() * 2);
      old.swap(edges_);
      for (const Edge& edge : old) {
        if (edge.child != kNone) place(edge);
      }
    }
    const auto fresh = static_cast<int32_t>(values_.size());
    values_.push_back(kNone);
    place({node, fresh, byte});
    return fresh;
  }

  std::vector<int32_t> values_;
  std::vector<Edge> edges_;  // open addressing, size a power of two, at most half full
};

}  // namespace frugal::text
