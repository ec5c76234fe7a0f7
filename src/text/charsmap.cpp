#include "text/charsmap.h"

#include <algorithm>
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

// Depth first, without recursion. Subtrees are shared (Darts-clone builds from a minimal automaton), so a unit may be
// reached on several ways, but never from below itself.
void Charsmap::validate(std::string_view name) const {
  enum class State : uint8_t { unseen, open, done };
  std::vector<State> states(units_.size(), State::unseen);
  std::vector<uint16_t> heights(units_.size(), 0);  // of the longest key below
  struct Visit {
    uint32_t index, base, next;  // next: the label to try
  };
  const auto enter = [&](uint32_t index) {
    const uint32_t base = index ^ offset(units_[index]);
    if (index != 0 && has_leaf(units_[index])) {
      if (base >= units_.size()) fail(ErrorKind::corrupt_file, "{}: charsmap unit {} points to unit {} of {}", name, index, base, units_.size());
      if (leaf_value(units_[base]) >= replacements_.size()) {
        fail(ErrorKind::corrupt_file, "{}: charsmap replacement at {} of {} bytes", name, leaf_value(units_[base]), replacements_.size());
      }
    }
    states[index] = State::open;
    return Visit{index, base, 1};
  };
  std::vector<Visit> path{enter(0)};
  while (!path.empty()) {
    Visit& top = path.back();
    if (top.next == 256) {
      states[top.index] = State::done;
      const uint16_t height = heights[top.index];
      path.pop_back();
      if (path.empty()) break;
      uint16_t& above = heights[path.back().index];
      above = std::max<uint16_t>(above, static_cast<uint16_t>(height + 1));
      continue;
    }
    const uint32_t c = top.next++, child = top.base ^ c;
    if (child >= units_.size() || label(units_[child]) != c) continue;
    if (states[child] == State::open) fail(ErrorKind::corrupt_file, "{}: charsmap unit {} is below itself", name, child);
    if (states[child] == State::done) {
      heights[top.index] = std::max<uint16_t>(heights[top.index], static_cast<uint16_t>(heights[child] + 1));
    } else {
      path.push_back(enter(child));
    }
    if (path.size() > kMaxDepth || heights[path.back().index] > kMaxDepth) {
      fail(ErrorKind::corrupt_file, "{}: charsmap is deeper than {} bytes", name, kMaxDepth);
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
