#include "text/charsmap.h"

#include <cstring>

#include "base/error.h"

namespace frugal::text {
namespace {

constexpr size_t kMaxBlobBytes = 8 << 20;  // mT5's is 0.3 MB
constexpr size_t kMaxDepth = 256;

// The fields of a Darts-clone unit.
bool has_leaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t leaf_value(uint32_t unit) { return unit & 0x7FFFFFFF; }
uint32_t label(uint32_t unit) { return unit & 0x800000FF; }
uint32_t offset(uint32_t unit) { return (unit >> 10) << ((unit & 1u << 9) >> 6); }

}  // namespace

Charsmap::Charsmap(std::string_view blob, std::string_view name) : blob_(blob) {
  if (blob.empty()) return;
  if (blob.size() > kMaxBlobBytes) fail(ErrorKind::corrupt_file, "{}: charsmap of {} bytes, more than {}", name, blob.size(), kMaxBlobBytes);
  if (blob.size() < 4) fail(ErrorKind::corrupt_file, "{}: charsmap of {} bytes has no size word", name, blob.size());
  uint32_t trie_bytes;
  std::memcpy(&trie_bytes, blob.data(), 4);
  if (trie_bytes % 4 != 0 || trie_bytes < 4 || trie_bytes > blob.size() - 4) {
    fail(ErrorKind::corrupt_file, "{}: charsmap says that its trie has {} bytes, but {} follow", name, trie_bytes, blob.size() - 4);
  }
  units_.resize(trie_bytes / 4);
  std::memcpy(units_.data(), blob.data() + 4, trie_bytes);
  replacements_ = blob.substr(4 + trie_bytes);
  if (!replacements_.empty() && replacements_.back() != '\0') fail(ErrorKind::corrupt_file, "{}: charsmap does not end with NUL", name);
  validate(name);
}

void Charsmap::validate(std::string_view name) const {
  std::vector<bool> seen(units_.size());
  struct Node {
    uint32_t index;
    size_t depth;
  };
  std::vector<Node> open{{0, 0}};
  seen[0] = true;
  while (!open.empty()) {
    const Node node = open.back();
    open.pop_back();
    const uint32_t base = node.index ^ offset(units_[node.index]);
    if (node.index != 0 && has_leaf(units_[node.index])) {
      if (base >= units_.size()) fail(ErrorKind::corrupt_file, "{}: charsmap unit {} points to unit {} of {}", name, node.index, base, units_.size());
      if (leaf_value(units_[base]) >= replacements_.size()) {
        fail(ErrorKind::corrupt_file, "{}: charsmap replacement at {} of {} bytes", name, leaf_value(units_[base]), replacements_.size());
      }
    }
    for (uint32_t c = 1; c < 256; ++c) {
      const uint32_t child = base ^ c;
      if (child >= units_.size() || label(units_[child]) != c) continue;
      if (seen[child]) fail(ErrorKind::corrupt_file, "{}: charsmap unit {} is reached twice", name, child);
      if (node.depth + 1 > kMaxDepth) fail(ErrorKind::corrupt_file, "{}: charsmap is deeper than {} bytes", name, kMaxDepth);
      seen[child] = true;
      open.push_back({child, node.depth + 1});
    }
  }
}

std::string_view Charsmap::replacement(uint32_t offset) const { return std::string_view(replacements_.c_str() + offset); }

// visit(length, offset of the replacement) for each key that is a prefix of text, shortest first, until it says false.
template <typename Visit>
void Charsmap::walk(std::string_view text, Visit visit) const {
  if (units_.empty()) return;
  uint32_t index = offset(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<uint8_t>(text[i]);
    index ^= c;
    if (c == 0 || index >= units_.size() || label(units_[index]) != c) return;
    const uint32_t unit = units_[index];
    index ^= offset(unit);
    if (has_leaf(unit) && !visit(i + 1, leaf_value(units_[index]))) return;
  }
}

std::optional<Charsmap::Match> Charsmap::longest(std::string_view text) const {
  std::optional<Match> found;
  walk(text, [&](size_t length, uint32_t at) {
    found = Match{length, replacement(at)};
    return true;
  });
  return found;
}

std::optional<Charsmap::Match> Charsmap::shortest(std::string_view text) const {
  std::optional<Match> found;
  walk(text, [&](size_t length, uint32_t at) {
    found = Match{length, replacement(at)};
    return false;
  });
  return found;
}

}  // namespace frugal::text
