// Byte pair encoding (Sennrich, Haddow, Birch 2016, arXiv 1508.07909): of all neighbours that may merge, the pair of
// lowest rank does, leftmost first, until none may. A heap of candidates over a linked list of symbols makes a piece of n
// symbols O(n log n); short pieces (nearly all) are faster with a scan.
#include <algorithm>
#include <queue>

#include "base/error.h"
#include "text/model.h"
#include "text/unicode.h"

namespace frugal::text {
namespace {

// (left, right) -> {rank, result}, open addressing.
class MergeTable {
 public:
  struct Entry {
    uint64_t key = kEmpty;
    int32_t rank = 0, result = 0;
  };

  explicit MergeTable(size_t count) {
    size_t size = 16;
    while (size < count * 2) size *= 2;
    entries_.resize(size);
  }

  // A pair that comes twice keeps its last rank if `replace` is set, as in `tokenizers`.
  void insert(const Merge& merge, bool replace) {
    const uint64_t key = make_key(merge.left, merge.right);
    size_t slot = home(key);
    while (entries_[slot].key != kEmpty && entries_[slot].key != key) slot = (slot + 1) & (entries_.size() - 1);
    if (entries_[slot].key == kEmpty || replace) entries_[slot] = {key, merge.rank, merge.result};
  }

  const Entry* find(int32_t left, int32_t right) const {
    if (left < 0 || right < 0) return nullptr;
    const uint64_t key = make_key(left, right);
    for (size_t slot = home(key);; slot = (slot + 1) & (entries_.size() - 1)) {
      if (entries_[slot].key == key) return &entries_[slot];
      if (entries_[slot].key == kEmpty) return nullptr;
    }
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};  // no pair: ids are not negative
  static uint64_t make_key(int32_t left, int32_t right) { return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right); }
  size_t home(uint64_t key) const {
    key *= 0x9E3779B97F4A7C15;
    return static_cast<size_t>(key ^ key >> 32) & (entries_.size() - 1);
  }

  std::vector<Entry> entries_;
};

constexpr size_t kShortPiece = 24;
constexpr int32_t kNoSymbol = -1;

class Bpe final : public TokenModel {
 public:
  // `extra` are characters that are no tokens but parts of some; they have the ids from vocabulary.size() on.
  Bpe(const Vocabulary& vocabulary, std::vector<Merge> merges, std::vector<std::string> extra, BpeOptions options, bool last_wins)
      : vocabulary_(vocabulary),
        table_(merges.size()),
        extra_(std::move(extra), true),
        options_(std::move(options)),
        bytes_(options_.unknown.byte_fallback ? byte_token_ids(vocabulary) : std::vector<int32_t>{}) {
    for (const Merge& merge : merges) table_.insert(merge, last_wins);
    if (options_.byte_level) {
      for (uint32_t b = 0; b < 256; ++b) byte_symbols_.push_back(vocabulary_.find(to_utf8(byte_to_char(static_cast<uint8_t>(b)))));
    }
    plain_ = options_.subword_prefix.empty() && options_.end_of_word.empty();
    most_bytes_ = options_.byte_level ? std::max<size_t>(1, vocabulary_.longest()) : options_.unknown.most_bytes(vocabulary_, bytes_);
  }

  // Of bytes that have no symbol there may be no ids.
  size_t least_ids(std::string_view piece) const override {
    const auto known = [&](char c) { return byte_symbols_[static_cast<uint8_t>(c)] >= 0; };
    return (options_.byte_level ? static_cast<size_t>(std::ranges::count_if(piece, known)) : piece.size()) / most_bytes_;
  }

  void encode(std::string_view piece, std::vector<int32_t>& ids) const override {
    if (piece.empty()) return;
    if (options_.ignore_merges) {
      const int32_t id = vocabulary_.find(options_.byte_level ? bytes_to_visible(piece) : std::string(piece));
      if (id >= 0 && (options_.control.empty() || !options_.control[static_cast<size_t>(id)])) {
        ids.push_back(id);
        return;
      }
    }
    std::vector<int32_t> symbols;
    symbols.reserve(piece.size());
    if (options_.byte_level) {
      byte_symbols(piece, symbols);
    } else {
      char_symbols(piece, symbols);
    }
    if (symbols.size() <= kShortPiece) {
      merge_short(symbols);
    } else {
      merge_long(symbols);
    }
    const size_t before = ids.size();
    for (const int32_t symbol : symbols) {
      // Unknown characters that met only now share one unk, too.
      bool open_unk = ids.size() > before && ids.back() == options_.unknown.unk;
      if (symbol >= vocabulary_.size()) {
        unknown_char(extra_.text(symbol - vocabulary_.size()), ids, open_unk);
      } else if (!(open_unk && options_.unknown.fuse_unk && symbol == options_.unknown.unk)) {
        ids.push_back(symbol);
      }
    }
  }

 private:
  void byte_symbols(std::string_view piece, std::vector<int32_t>& symbols) const {
    bool open_unk = false;
    for (const char c : piece) {
      const int32_t id = byte_symbols_[static_cast<uint8_t>(c)];
      if (id >= 0) {
        symbols.push_back(id);
        open_unk = false;
      } else {
        unknown_char(std::string_view(&c, 1), symbols, open_unk);
      }
    }
  }

  void char_symbols(std::string_view piece, std::vector<int32_t>& symbols) const {
    bool open_unk = false;
    for (size_t at = 0; at < piece.size();) {
      const size_t length = decode_char(piece, at).length;
      std::string_view c = piece.substr(at, length);
      std::string decorated;
      if (!plain_) {
        decorated = (at > 0 ? options_.subword_prefix : std::string{}) + std::string(c) + (at + length == piece.size() ? options_.end_of_word : std::string{});
        c = decorated;
      }
      at += length;
      int32_t id = vocabulary_.find(c);
      if (id < 0) {
        const int32_t extra = extra_.find(c);
        if (extra >= 0) id = vocabulary_.size() + extra;
      }
      if (id >= 0) {
        symbols.push_back(id);
        open_unk = false;
      } else {
        unknown_char(c, symbols, open_unk);
      }
    }
  }

  // Byte tokens, else unk (one for a run of unknowns if fused), else nothing.
  void unknown_char(std::string_view c, std::vector<int32_t>& symbols, bool& open_unk) const {
    if (options_.unknown.byte_fallback && std::all_of(c.begin(), c.end(), [&](char b) { return bytes_[static_cast<uint8_t>(b)] >= 0; })) {
      for (const char b : c) symbols.push_back(bytes_[static_cast<uint8_t>(b)]);
      open_unk = false;
    } else if (options_.unknown.unk) {
      if (!(open_unk && options_.unknown.fuse_unk)) symbols.push_back(*options_.unknown.unk);
      open_unk = true;
    }
  }

  void merge_short(std::vector<int32_t>& symbols) const {
    const MergeTable::Entry* candidates[kShortPiece] = {};
    for (size_t i = 0; i + 1 < symbols.size(); ++i) candidates[i] = table_.find(symbols[i], symbols[i + 1]);
    while (symbols.size() > 1) {
      size_t best = symbols.size();
      for (size_t i = 0; i + 1 < symbols.size(); ++i) {
        if (candidates[i] && (best == symbols.size() || candidates[i]->rank < candidates[best]->rank)) best = i;
      }
      if (best == symbols.size()) return;
      symbols[best] = candidates[best]->result;
      symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
      std::copy(candidates + best + 1, candidates + symbols.size(), candidates + best);
      candidates[symbols.size() - 1] = nullptr;
      if (best + 1 < symbols.size()) candidates[best] = table_.find(symbols[best], symbols[best + 1]);
      if (best > 0) candidates[best - 1] = table_.find(symbols[best - 1], symbols[best]);
    }
  }

  struct Candidate {
    int32_t rank;
    uint32_t position;
    int32_t left, right;  // as they were when this was pushed
    int32_t result;
    bool operator<(const Candidate& other) const {  // priority_queue pops the largest
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };

  void merge_long(std::vector<int32_t>& symbols) const {
    if (symbols.size() >= UINT32_MAX) fail(ErrorKind::invalid_input, "a piece of {} symbols is too long to encode", symbols.size());
    const auto count = static_cast<uint32_t>(symbols.size());
    constexpr uint32_t kEnd = UINT32_MAX;
    std::vector<uint32_t> next(count), previous(count);
    std::vector<Candidate> initial;
    for (uint32_t i = 0; i < count; ++i) {
      next[i] = i + 1 < count ? i + 1 : kEnd;
      previous[i] = i > 0 ? i - 1 : kEnd;
      if (i + 1 < count) {
        if (const auto* entry = table_.find(symbols[i], symbols[i + 1])) {
          initial.push_back({entry->rank, i, symbols[i], symbols[i + 1], entry->result});
        }
      }
    }
    std::priority_queue<Candidate> queue(std::less<Candidate>{}, std::move(initial));
    const auto push = [&](uint32_t position) {
      const uint32_t right = next[position];
      if (right == kEnd) return;
      if (const auto* entry = table_.find(symbols[position], symbols[right])) {
        queue.push({entry->rank, position, symbols[position], symbols[right], entry->result});
      }
    };
    while (!queue.empty()) {
      const Candidate best = queue.top();
      queue.pop();
      const uint32_t right = next[best.position];
      if (symbols[best.position] != best.left || right == kEnd || symbols[right] != best.right) continue;
      symbols[best.position] = best.result;
      symbols[right] = kNoSymbol;
      next[best.position] = next[right];
      if (next[right] != kEnd) previous[next[right]] = best.position;
      push(best.position);
      if (previous[best.position] != kEnd) push(previous[best.position]);
    }
    std::erase(symbols, kNoSymbol);
  }

  const Vocabulary& vocabulary_;
  MergeTable table_;
  Vocabulary extra_;
  BpeOptions options_;
  std::vector<int32_t> bytes_;         // <0x00>..<0xFF>
  std::vector<int32_t> byte_symbols_;  // byte-level: the id of each byte
  bool plain_ = true;
  size_t most_bytes_ = 0;
};

constexpr size_t kMaxPieceBytes = 1024;

}  // namespace

std::string byte_token(int byte) { return fmt::format("<0x{:02X}>", byte); }

std::vector<int32_t> byte_token_ids(const Vocabulary& vocabulary) {
  std::vector<int32_t> ids;
  for (int b = 0; b < 256; ++b) ids.push_back(vocabulary.find(byte_token(b)));
  return ids;
}

size_t UnknownOptions::most_bytes(const Vocabulary& vocabulary, const std::vector<int32_t>& byte_ids) const {
  const bool covered = !byte_ids.empty() && std::ranges::find(byte_ids, -1) == byte_ids.end();
  return covered || (unk && !fuse_unk) ? std::max<size_t>(4, vocabulary.longest()) : SIZE_MAX;
}

std::unique_ptr<const TokenModel> make_bpe(const Vocabulary& vocabulary, const std::vector<std::pair<std::string_view, std::string_view>>& merges,
                                           BpeOptions options) {
  std::vector<Merge> table;
  table.reserve(merges.size());
  std::string joined;
  for (size_t i = 0; i < merges.size(); ++i) {
    const auto& [left, right] = merges[i];
    const bool prefixed = !options.subword_prefix.empty() && right.starts_with(options.subword_prefix);
    joined.assign(left);
    joined += prefixed ? right.substr(options.subword_prefix.size()) : right;
    Merge merge{vocabulary.find(left), vocabulary.find(right), vocabulary.find(joined), static_cast<int32_t>(i)};
    if (merge.left < 0 || merge.right < 0 || merge.result < 0) {
      fail(ErrorKind::corrupt_file, "{}: merge {} (\"{}\" + \"{}\"): \"{}\" is not a token. Perhaps vocabulary and merges are of different models?",
           options.source, i, printable(left), printable(right),
           printable(merge.left < 0    ? left
                     : merge.right < 0 ? right
                                       : std::string_view(joined)));
    }
    table.push_back(merge);
  }
  return std::make_unique<Bpe>(vocabulary, std::move(table), std::vector<std::string>{}, std::move(options), true);
}

std::unique_ptr<const TokenModel> make_score_bpe(const Vocabulary& vocabulary, const std::vector<float>& scores, const std::vector<bool>& mergeable,
                                                 BpeOptions options) {
  // Equal scores must have equal ranks, so that they merge from the left.
  std::vector<float> order;
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    if (mergeable[static_cast<size_t>(id)]) order.push_back(scores[static_cast<size_t>(id)]);
  }
  std::sort(order.begin(), order.end(), std::greater<>());
  order.erase(std::unique(order.begin(), order.end()), order.end());

  // Characters that only occur inside tokens get ids of their own, so that they can merge.
  std::vector<std::string> extra;
  std::unordered_map<std::string, int32_t> extra_ids;
  const auto symbol = [&](std::string_view text, bool is_char) {
    const int32_t id = vocabulary.find(text);
    if (id >= 0) return mergeable[static_cast<size_t>(id)] || is_char ? id : kNoSymbol;
    if (!is_char) return kNoSymbol;
    const auto [it, is_new] = extra_ids.try_emplace(std::string(text), vocabulary.size() + static_cast<int32_t>(extra.size()));
    if (is_new) extra.emplace_back(text);
    return it->second;
  };
  std::vector<Merge> merges;
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    const std::string_view text = vocabulary.text(id);
    if (!mergeable[static_cast<size_t>(id)] || vocabulary.find(text) != id) continue;
    if (text.size() > kMaxPieceBytes) fail(ErrorKind::unsupported, "{}: token {} has {} bytes, more than {}", options.source, id, text.size(), kMaxPieceBytes);
    const auto rank = static_cast<int32_t>(std::lower_bound(order.begin(), order.end(), scores[static_cast<size_t>(id)], std::greater<>()) - order.begin());
    const size_t first = decode_char(text, 0).length;
    for (size_t cut = first; cut < text.size();) {
      const size_t length = decode_char(text, cut).length;
      const int32_t left = symbol(text.substr(0, cut), cut == first);
      const int32_t right = symbol(text.substr(cut), cut + length == text.size());
      if (left >= 0 && right >= 0) merges.push_back({left, right, id, rank});
      cut += length;
    }
  }
  return std::make_unique<Bpe>(vocabulary, std::move(merges), std::move(extra), std::move(options), false);
}

}  // namespace frugal::text
