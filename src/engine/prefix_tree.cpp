#include "engine/prefix_tree.h"

#include <algorithm>

#include "base/error.h"

namespace frugal::engine {
namespace {

// Keyed by nothing: a client that finds collisions makes its own lookups slow, never wrong.
uint64_t hash_of(std::span<const int32_t> tokens) {
  uint64_t hash = 0x9E3779B97F4A7C15;
  for (const int32_t token : tokens) {
    hash ^= static_cast<uint32_t>(token);
    hash *= 0xBF58476D1CE4E5B9;
    hash ^= hash >> 29;
  }
  return hash;
}

}  // namespace

PrefixTree::Node* PrefixTree::child(Node& node, std::span<const int32_t> tokens) const {
  const auto [begin, end] = node.children.equal_range(hash_of(tokens));
  for (auto it = begin; it != end; ++it) {
    if (std::ranges::equal(it->second->tokens, tokens)) return it->second.get();
  }
  return nullptr;
}

void PrefixTree::touch(Node& node) {
  auto leaf = leaves_.extract(&node);  // its place in the set, which depends on when it was used
  node.used = calls_;
  leaves_.insert(std::move(leaf));
}

std::vector<int32_t> PrefixTree::match(const std::string& scope, std::span<const int32_t> tokens) {
  ++calls_;
  std::vector<int32_t> blocks;
  const auto root = roots_.find(scope);
  Node* node = root == roots_.end() ? nullptr : &root->second;
  const auto size = static_cast<size_t>(block_size_);
  for (size_t begin = 0; node && begin + size <= tokens.size(); begin += size) {
    node = child(*node, tokens.subspan(begin, size));
    if (!node) break;
    touch(*node);
    blocks.push_back(node->block);
  }
  return blocks;
}

std::vector<int32_t> PrefixTree::insert(const std::string& scope, std::span<const int32_t> tokens, std::span<const int32_t> blocks) {
  ++calls_;
  std::vector<int32_t> kept;
  if (blocks.empty()) return kept;
  Node* node = &roots_[scope];
  const auto size = static_cast<size_t>(block_size_);
  FRUGAL_ASSERT(tokens.size() >= blocks.size() * size);
  for (size_t i = 0; i < blocks.size(); ++i) {
    const auto part = tokens.subspan(i * size, size);
    Node* next = child(*node, part);
    if (next) {
      touch(*next);
    } else {
      // Without memory, the tree stays as it is.
      auto made = std::make_unique<Node>(Node{node, {part.begin(), part.end()}, blocks[i], calls_, {}});
      std::set<Node*, Older> leaf;
      leaf.insert(made.get());
      next = node->children.emplace(hash_of(part), std::move(made))->second.get();
      leaves_.erase(node);
      leaves_.merge(leaf);
      pool_.retain(blocks[i]);
      ++nodes_;
    }
    node = next;
    kept.push_back(node->block);
  }
  return kept;
}

bool PrefixTree::evict_one() {
  // A beginning that someone uses ends in a leaf that someone uses, or in a block that becomes a leaf.
  const auto found = std::ranges::find_if(leaves_, [&](const Node* node) { return pool_.owners(node->block) == 1; });
  if (found == leaves_.end()) return false;
  remove(*found);
  return true;
}

void PrefixTree::clear() {
  while (!leaves_.empty()) remove(*leaves_.begin());
}

void PrefixTree::remove(Node* leaf) {
  auto place = leaves_.extract(leaf);
  pool_.release(leaf->block);
  --nodes_;
  Node* const parent = leaf->parent;
  const auto [begin, end] = parent->children.equal_range(hash_of(leaf->tokens));
  parent->children.erase(std::find_if(begin, end, [&](const auto& entry) { return entry.second.get() == leaf; }));
  if (!parent->children.empty()) return;
  if (parent->block >= 0) {
    place.value() = parent;
    leaves_.insert(std::move(place));
  } else {
    std::erase_if(roots_, [&](const auto& root) { return &root.second == parent; });
  }
}

}  // namespace frugal::engine
