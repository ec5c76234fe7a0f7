// Full blocks of keys and values that finished requests left behind, by the tokens that made them: a tree of blocks, one node each, so
// that requests which begin alike share memory and work. The tree owns each of its blocks once, beside the sequences that use it; what
// only the tree owns is evicted, least recently used leaf first, when the pool is empty. A scope is never served blocks of another one.
// (RadixAttention, arXiv 2312.07104, with nodes of one block, as in PagedAttention, arXiv 2309.06180.)
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "nn/block_pool.h"

namespace frugal::engine {

class PrefixTree {
 public:
  PrefixTree(nn::BlockPool& pool, int64_t block_size) : pool_(pool), block_size_(block_size) {}
  ~PrefixTree() { clear(); }
  PrefixTree(const PrefixTree&) = delete;
  PrefixTree& operator=(const PrefixTree&) = delete;

  // The blocks of the longest cached beginning of `tokens`. The caller retains what it uses before anything else happens.
  std::vector<int32_t> match(const std::string& scope, std::span<const int32_t> tokens);
  // blocks[i] holds tokens [i * block_size, (i + 1) * block_size): written, and never written again. Where a block with the same beginning is
  // there already, that one stays. Returns the tree's blocks: a sequence that goes on must use these, so that whoever uses a node uses all
  // that are above it.
  std::vector<int32_t> insert(const std::string& scope, std::span<const int32_t> tokens, std::span<const int32_t> blocks);
  // Frees one block that nobody else owns; false: there is none.
  bool evict_one();
  void clear();
  int64_t size() const { return static_cast<int64_t>(nodes_); }  // blocks

 private:
  struct Node {
    Node* parent = nullptr;
    std::vector<int32_t> tokens;                                        // of its block; compared on each hit, since hashes collide
    int32_t block = -1;                                                 // -1: a root
    uint64_t used = 0;                                                  // when, in calls
    std::unordered_multimap<uint64_t, std::unique_ptr<Node>> children;  // by the hash of their tokens
  };
  struct Older {
    bool operator()(const Node* a, const Node* b) const { return a->used != b->used ? a->used < b->used : a->block < b->block; }
  };
  Node* child(Node& node, std::span<const int32_t> tokens) const;
  void touch(Node& node);
  void remove(Node* leaf);

  nn::BlockPool& pool_;
  int64_t block_size_;
  uint64_t calls_ = 0;
  size_t nodes_ = 0;
  std::map<std::string, Node> roots_;
  std::set<Node*, Older> leaves_;
};

}  // namespace frugal::engine
