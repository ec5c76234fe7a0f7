#include "text/grammar/char_set.h"

#include <algorithm>

namespace frugal::text::grammar {

CharSet::CharSet(std::vector<CharRange> ranges) : ranges_(std::move(ranges)) { normalize(); }

void CharSet::normalize() {
  std::sort(ranges_.begin(), ranges_.end(), [](const CharRange& a, const CharRange& b) { return a.first < b.first; });
  std::vector<CharRange> merged;
  for (const CharRange& range : ranges_) {
    if (!merged.empty() && range.first <= merged.back().last + 1) {
      merged.back().last = std::max(merged.back().last, range.last);
    } else {
      merged.push_back(range);
    }
  }
  ranges_ = std::move(merged);
}

void CharSet::add(uint32_t first, uint32_t last) {
  ranges_.push_back({first, last});
  normalize();
}

void CharSet::add(const CharSet& other) {
  ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end());
  normalize();
}

CharSet CharSet::complement() const {
  CharSet result;
  uint32_t next = 0;
  for (const CharRange& range : ranges_) {
    if (range.first > next) result.ranges_.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= kLastChar) result.ranges_.push_back({next, kLastChar});
  return result;
}

CharSet CharSet::intersect(const CharSet& other) const {
  CharSet result;
  for (size_t i = 0, j = 0; i < ranges_.size() && j < other.ranges_.size();) {
    const CharRange &a = ranges_[i], &b = other.ranges_[j];
    const uint32_t first = std::max(a.first, b.first), last = std::min(a.last, b.last);
    if (first <= last) result.ranges_.push_back({first, last});
    a.last < b.last ? ++i : ++j;
  }
  return result;
}

bool CharSet::contains(uint32_t c) const {
  const auto it = std::upper_bound(ranges_.begin(), ranges_.end(), c, [](uint32_t value, const CharRange& range) { return value < range.first; });
  return it != ranges_.begin() && c <= std::prev(it)->last;
}

}  // namespace frugal::text::grammar
