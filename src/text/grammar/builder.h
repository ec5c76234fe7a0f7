// Makes the nodes of a program; `finish` proves that the grammar is sound and gives the program.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <unordered_map>

#include "text/grammar/char_set.h"
#include "text/grammar/program.h"

namespace frugal::text::grammar {

class Builder {
 public:
  static constexpr size_t kMaxNodes = 300'000;
  static constexpr uint32_t kMaxRepeat = 1'000'000;

  Builder();

  NodeId never() const { return 0; }
  NodeId empty() const { return 1; }
  NodeId bytes(const ByteSet& set);
  NodeId byte(char c);
  NodeId literal(std::string_view text);
  NodeId sequence(const std::vector<NodeId>& parts);
  NodeId sequence(NodeId first, NodeId second);
  NodeId alternatives(std::vector<NodeId> parts);
  NodeId optional(NodeId node) { return alternatives({node, empty()}); }
  NodeId repeat(NodeId body, uint32_t min, uint32_t max);
  // One of these texts, as a trie.
  NodeId choices(std::vector<std::string> texts);
  // One character in UTF-8. Surrogates have none.
  NodeId character(const CharSet& set);
  // A node whose target is set later; rules refer to each other through it.
  NodeId reference();
  void set_target(NodeId reference, NodeId target);
  // The nodes of a finished program, in groups of their own: its node i becomes the returned one + i.
  NodeId add(const Program& program);
  bool is_never(NodeId node) const { return nodes_[node].kind == NodeKind::never; }
  const Node& node(NodeId id) const { return nodes_[id]; }

  // Nodes made from here on belong to a new group, or to one made before.
  uint32_t new_group() { return group_ = ++groups_; }
  uint32_t group() const { return group_; }
  void set_group(uint32_t group) { group_ = group; }
  void name_group(std::string name) { group_names_[group_] = std::move(name); }  // for error messages

  // Errors: invalid_input for a grammar that accepts nothing, and for left recursion. The builder is spent.
  Program finish(NodeId root);
  // Whether any text is accepted; the builder stays as it is.
  bool accepts_anything(NodeId root) const;

 private:
  friend class Finisher;
  NodeId make(const Node& node);
  NodeId trie_of(const std::vector<std::string>& texts, size_t first, size_t last, size_t depth);

  std::vector<Node> nodes_;
  std::vector<ByteSet> byte_sets_;
  std::string literals_;
  std::vector<NodeId> children_;
  std::unordered_map<uint64_t, std::vector<NodeId>> known_;  // by hash: equal nodes are made once
  std::unordered_map<std::string, uint32_t> known_sets_;
  std::map<std::pair<uint32_t, CharSet>, NodeId> known_characters_;  // by group
  std::unordered_map<uint32_t, std::string> group_names_;
  uint32_t group_ = 0, groups_ = 0;
};

// Sets a group for a scope.
class GroupScope {
 public:
  explicit GroupScope(Builder& builder) : builder_(builder), before_(builder.group()) { builder.new_group(); }
  GroupScope(Builder& builder, uint32_t group) : builder_(builder), before_(builder.group()) { builder.set_group(group); }
  ~GroupScope() { builder_.set_group(before_); }
  GroupScope(const GroupScope&) = delete;
  GroupScope& operator=(const GroupScope&) = delete;

 private:
  Builder& builder_;
  uint32_t before_;
};

}  // namespace frugal::text::grammar
