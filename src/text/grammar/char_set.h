// Sets of Unicode code points as sorted ranges.
#pragma once

#include <compare>
#include <cstdint>
#include <vector>

namespace frugal::text::grammar {

struct CharRange {
  uint32_t first, last;
  friend auto operator<=>(const CharRange&, const CharRange&) = default;
};

constexpr uint32_t kLastChar = 0x10FFFF;

class CharSet {
 public:
  CharSet() = default;
  explicit CharSet(std::vector<CharRange> ranges);
  static CharSet all() { return CharSet({{0, kLastChar}}); }
  static CharSet digits() { return CharSet({{'0', '9'}}); }
  static CharSet word() { return CharSet({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}); }
  static CharSet space() { return CharSet({{'\t', '\r'}, {' ', ' '}}); }
  static CharSet dot() { return CharSet({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}).complement(); }

  void add(uint32_t first, uint32_t last);
  void add(const CharSet& other);
  CharSet complement() const;
  CharSet intersect(const CharSet& other) const;
  bool empty() const { return ranges_.empty(); }
  bool contains(uint32_t c) const;
  const std::vector<CharRange>& ranges() const { return ranges_; }  // ascending, neither overlapping nor touching
  friend auto operator<=>(const CharSet&, const CharSet&) = default;

 private:
  void normalize();
  std::vector<CharRange> ranges_;
};

}  // namespace frugal::text::grammar
