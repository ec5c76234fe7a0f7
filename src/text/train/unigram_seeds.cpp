// The inner nodes of the suffix tree of all distinct words, down to the longest piece: substrings that occur more than once and
// are followed by different characters. The suffixes are sorted by as many characters as matter.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "base/error.h"
#include "base/progress.h"
#include "text/train/unigram_trainer.h"
#include "text/unicode.h"

namespace frugal::text {
namespace {

constexpr uint32_t kWordEnd = 0;

struct Suffix {
  uint64_t key;  // its first three characters
  uint32_t begin;
};

struct Substring {
  uint32_t begin, length;
  uint64_t score;  // occurrences x length
};

class RepeatedSubstrings {
 public:
  RepeatedSubstrings(const std::vector<WordCount>& words, size_t max_length) : max_length_(max_length) {
    for (const auto& item : words) {
      for (const uint32_t c : decode_chars(item.word)) text_.push_back(c);
      text_.push_back(kWordEnd);
    }
    if (text_.size() >= std::numeric_limits<uint32_t>::max()) fail(ErrorKind::unsupported, "{} characters of distinct words are too many", text_.size());
  }

  std::vector<Substring> find() {
    sort_suffixes();
    std::vector<Substring> found;
    struct Open {
      size_t first, length;
    };
    std::vector<Open> open{{0, 0}};
    for (size_t i = 1; i <= suffixes_.size(); ++i) {
      const size_t common = i == suffixes_.size() ? 0 : common_prefix(suffixes_[i - 1].begin, suffixes_[i].begin);
      size_t first = i - 1;
      for (; open.back().length > common; open.pop_back()) {
        first = open.back().first;
        add(suffixes_[first].begin, open.back().length, i - first, found);
      }
      if (open.back().length < common) open.push_back({first, common});
    }
    return found;
  }

  std::string text(const Substring& substring) const {
    std::string result;
    for (uint32_t i = 0; i < substring.length; ++i) append_utf8(result, text_[substring.begin + i]);
    return result;
  }

  // Most characters x occurrences first, then from the end of the order of characters.
  bool comes_before(const Substring& a, const Substring& b) const {
    if (a.score != b.score) return a.score > b.score;
    const auto characters = [&](const Substring& s) { return std::pair(text_.begin() + s.begin, text_.begin() + s.begin + s.length); };
    const auto [a_begin, a_end] = characters(a);
    const auto [b_begin, b_end] = characters(b);
    return std::lexicographical_compare(b_begin, b_end, a_begin, a_end);
  }

 private:
  void sort_suffixes() {
    suffixes_.reserve(text_.size());
    for (uint32_t i = 0; i < text_.size(); ++i) {
      if (text_[i] == kWordEnd) continue;
      uint64_t key = 0;
      bool ended = false;
      for (uint32_t k = 0; k < 3; ++k) {
        const uint32_t c = ended ? kWordEnd : text_[i + k];
        ended |= c == kWordEnd;
        key = key << 21 | c;
      }
      suffixes_.push_back({key, i});
    }
    stop_point();
    std::sort(suffixes_.begin(), suffixes_.end(), [&](const Suffix& a, const Suffix& b) {
      if (a.key != b.key) return a.key < b.key;
      for (size_t k = 0; k <= max_length_; ++k) {
        const uint32_t x = text_[a.begin + k], y = text_[b.begin + k];
        if (x != y) return x < y;
        if (x == kWordEnd) break;
      }
      return false;
    });
    stop_point();
  }

  // The end of a word counts as a character; beyond max_length_ + 1 does not matter.
  size_t common_prefix(uint32_t a, uint32_t b) const {
    size_t length = 0;
    while (length <= max_length_ && text_[a + length] == text_[b + length]) {
      if (text_[a + length++] == kWordEnd) break;
    }
    return length;
  }

  void add(uint32_t begin, size_t length, size_t count, std::vector<Substring>& found) const {
    if (length < 2 || length > max_length_ || text_[begin + length - 1] == kWordEnd) return;
    found.push_back({begin, static_cast<uint32_t>(length), count * length});
  }

  size_t max_length_;
  std::vector<uint32_t> text_;  // all words, each with kWordEnd
  std::vector<Suffix> suffixes_;
};

}  // namespace

std::vector<UnigramPiece> seed_pieces(const std::vector<WordCount>& words, const UnigramTrainerOptions& options) {
  std::map<uint32_t, int64_t> characters;
  for (const auto& [word, count] : words) {
    for (const uint32_t c : decode_chars(word)) {
      if (c != kWordEnd) characters[c] += count;
    }
  }
  std::vector<std::pair<int64_t, uint32_t>> by_count;
  for (const auto& [c, count] : characters) by_count.emplace_back(count, c);
  std::sort(by_count.rbegin(), by_count.rend());
  std::vector<UnigramPiece> pieces;
  for (const auto& [count, c] : by_count) pieces.push_back({to_utf8(c), static_cast<double>(count)});

  RepeatedSubstrings substrings(words, static_cast<size_t>(options.max_piece_length));
  std::vector<Substring> found = substrings.find();
  std::sort(found.begin(), found.end(), [&](const Substring& a, const Substring& b) { return substrings.comes_before(a, b); });
  for (const Substring& substring : found) {
    pieces.push_back({substrings.text(substring), static_cast<double>(substring.score)});
    if (static_cast<int64_t>(pieces.size()) >= options.seed_size) break;
  }
  double sum = 0;
  for (const UnigramPiece& piece : pieces) sum += piece.score;
  for (UnigramPiece& piece : pieces) piece.score = std::log(piece.score) - std::log(sum);
  return pieces;
}

}  // namespace frugal::text
