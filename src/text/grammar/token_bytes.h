// The bytes of every token of a vocabulary as a trie in depth-first order, which masks are computed over.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace frugal::text {

// Immutable and thread-safe.
class TokenBytes {
 public:
  // Control tokens and the unknown token are never allowed, but those of `shown` as their text; the ids that end a turn are, where the grammar
  // may end.
  explicit TokenBytes(const Tokenizer& tokenizer, std::span<const int32_t> shown = {});
  // One text per id; "" for an id that is never allowed.
  TokenBytes(std::vector<std::string> texts, std::vector<int32_t> end_ids);

  int32_t size() const { return static_cast<int32_t>(texts_.size()); }
  std::string_view text(int32_t id) const { return texts_[static_cast<size_t>(id)]; }
  std::span<const int32_t> end_ids() const { return end_ids_; }
  bool is_end(int32_t id) const;
  size_t longest() const { return longest_; }

  // The trie. Node 0 is the root; the children of a node follow it, up to its `end`.
  struct TrieNode {
    uint32_t end;          // one past the last node below
    uint32_t first_token;  // its tokens are token_ids[first_token .. the next node's first_token)
    uint16_t depth;
    uint8_t byte;
  };
  std::span<const TrieNode> nodes() const { return nodes_; }  // and one more at the end, which only bounds the tokens of the last
  std::span<const int32_t> token_ids() const { return token_ids_; }

 private:
  void build();

  std::vector<std::string> texts_;
  std::vector<int32_t> end_ids_;
  std::vector<TrieNode> nodes_;
  std::vector<int32_t> token_ids_;
  size_t longest_ = 0;
};

}  // namespace frugal::text
