#include "text/train/bpe_trainer.h"

#include <algorithm>
#include <array>
#include <limits>
#include <queue>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "base/progress.h"
#include "text/unicode.h"

namespace frugal::text {
namespace {

constexpr int32_t kNone = -1;

// What is known of each pair of ids that are or were neighbours.
class PairTable {
 public:
  struct Entry {
    uint64_t key = kEmpty;
    int64_t count = 0;
    std::vector<uint32_t> words = {};  // that the pair came up in since it was last queued, in order
  };

  PairTable() : slots_(1 << 12, kFree) {}

  uint32_t find_or_insert(uint64_t key) {
    for (size_t slot = home(key);; slot = (slot + 1) & (slots_.size() - 1)) {
      if (slots_[slot] == kFree) return insert(key, slot);
      if (entries_[slots_[slot]].key == key) return slots_[slot];
    }
  }
  Entry& operator[](uint32_t index) { return entries_[index]; }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  static constexpr uint32_t kFree = ~uint32_t{0};

  size_t home(uint64_t key) const {
    key *= 0x9E3779B97F4A7C15;
    return static_cast<size_t>(key ^ key >> 32) & (slots_.size() - 1);
  }

  uint32_t insert(uint64_t key, size_t slot) {
    const auto index = static_cast<uint32_t>(entries_.size());
    entries_.push_back({.key = key});
    slots_[slot] = index;
    if (entries_.size() * 2 > slots_.size()) {
      std::vector<uint32_t>(slots_.size() * 2, kFree).swap(slots_);
      for (uint32_t i = 0; i < entries_.size(); ++i) {
        size_t at = home(entries_[i].key);
        while (slots_[at] != kFree) at = (at + 1) & (slots_.size() - 1);
        slots_[at] = i;
      }
    }
    return index;
  }

  std::vector<uint32_t> slots_;  // open addressing, at most half full
  std::vector<Entry> entries_;
};

// In the queue. Its count may have become stale; then it goes back with the true one. A pair that a second way of writing the
// same token brings up again is queued again, with the words of that time: `tokenizers` does so, and the merges depend on it.
struct Candidate {
  int64_t count;
  uint64_t key;
  uint32_t pair, words;  // indices

  bool operator<(const Candidate& other) const {  // priority_queue pops the largest
    return count != other.count ? count < other.count : key > other.key;
  }
};

uint64_t pair_key(int32_t left, int32_t right) { return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right); }

class BpeTraining {
 public:
  BpeTraining(const std::vector<WordCount>& words, const BpeTrainerOptions& options) : words_(words), options_(options) {}

  TrainedBpe run() {
    for (const std::string& token : options_.special_tokens) add_token(token);
    add_alphabet();
    split_words();
    count_pairs();
    merge_pairs();
    // A pair that merged twice has the rank of its last time.
    std::unordered_set<uint64_t> seen;
    std::vector<std::pair<int32_t, int32_t>> merges;
    for (auto merge = merges_.rbegin(); merge != merges_.rend(); ++merge) {
      if (seen.insert(pair_key(merge->first, merge->second)).second) merges.push_back(*merge);
    }
    std::reverse(merges.begin(), merges.end());
    return {std::move(tokens_), std::move(merges)};
  }

 private:
  int32_t add_token(const std::string& text) {
    const auto [it, is_new] = ids_.try_emplace(text, static_cast<int32_t>(tokens_.size()));
    if (is_new) {
      tokens_.push_back(text);
      lengths_.push_back(static_cast<int64_t>(decode_chars(text).size()));
    }
    return it->second;
  }

  void add_alphabet() {
    std::array<int64_t, 256> counts{};
    for (const auto& [word, count] : words_) {
      for (const char c : word) counts[static_cast<uint8_t>(c)] += count;
    }
    for (const char c : options_.initial_alphabet) counts[static_cast<uint8_t>(c)] = std::numeric_limits<int64_t>::max();
    std::vector<std::pair<uint32_t, uint8_t>> kept;  // visible character and byte, in the order of the characters
    for (int byte = 0; byte < 256; ++byte) {
      if (counts[static_cast<size_t>(byte)] > 0) kept.emplace_back(byte_to_char(static_cast<uint8_t>(byte)), static_cast<uint8_t>(byte));
    }
    std::sort(kept.begin(), kept.end());
    if (options_.limit_alphabet && static_cast<int64_t>(kept.size()) > *options_.limit_alphabet) {
      std::stable_sort(kept.begin(), kept.end(), [&](const auto& a, const auto& b) { return counts[a.second] > counts[b.second]; });
      kept.resize(static_cast<size_t>(*options_.limit_alphabet));
      std::sort(kept.begin(), kept.end());
    }
    for (const auto& kept_char : kept) add_token(to_utf8(kept_char.first));
    // A special token of one character counts as that one, kept or not.
    for (int byte = 0; byte < 256; ++byte) {
      const auto it = ids_.find(to_utf8(byte_to_char(static_cast<uint8_t>(byte))));
      byte_ids_[static_cast<size_t>(byte)] = it == ids_.end() ? kNone : it->second;
    }
  }

  void split_words() {
    if (words_.size() >= std::numeric_limits<uint32_t>::max()) fail(ErrorKind::unsupported, "{} distinct words are too many to train on", words_.size());
    size_t total = 0;
    for (const auto& item : words_) total += item.word.size();
    symbols_.reserve(total);
    for (const auto& item : words_) {
      begins_.push_back(symbols_.size());
      for (const char c : item.word) {
        if (const int32_t id = byte_ids_[static_cast<uint8_t>(c)]; id != kNone) symbols_.push_back(id);
      }
      sizes_.push_back(symbols_.size() - begins_.back());
    }
  }

  // `change` of one occurrence of the pair in the word; one that is new is to be queued.
  void change_pair(int32_t left, int32_t right, uint32_t word, int change) {
    const uint32_t index = pairs_.find_or_insert(pair_key(left, right));
    PairTable::Entry& entry = pairs_[index];
    entry.count += change * words_[word].count;
    if (change < 0) return;
    if (entry.words.empty()) touched_.push_back(index);
    if (entry.words.empty() || entry.words.back() != word) entry.words.push_back(word);
  }

  void queue_touched() {
    for (const uint32_t index : touched_) {
      PairTable::Entry& entry = pairs_[index];
      if (entry.count > 0) {
        if (free_.empty()) {
          free_.push_back(static_cast<uint32_t>(word_lists_.size()));
          word_lists_.emplace_back();
        }
        word_lists_[free_.back()] = std::move(entry.words);
        queue_.push({entry.count, entry.key, index, free_.back()});
        free_.pop_back();
      }
      entry.words = {};
    }
    touched_.clear();
  }

  void count_pairs() {
    for (uint32_t word = 0; word < words_.size(); ++word) {
      const int32_t* symbols = symbols_.data() + begins_[word];
      for (size_t i = 0; i + 1 < sizes_[word]; ++i) change_pair(symbols[i], symbols[i + 1], word, 1);
    }
    queue_touched();
  }

  void merge_pairs() {
    const auto size = [&] { return static_cast<int64_t>(tokens_.size()); };
    Progress progress("merging pairs", std::max<int64_t>(0, options_.vocab_size - size()));
    while (size() < options_.vocab_size && !queue_.empty()) {
      Candidate best = queue_.top();
      queue_.pop();
      if (const int64_t count = pairs_[best.pair].count; count != best.count) {
        best.count = count;
        queue_.push(best);
        continue;
      }
      if (best.count < 1 || best.count < options_.min_frequency) break;
      const int64_t before = size();
      merge(best);
      progress.step(size() - before);
    }
  }

  void merge(const Candidate& best) {
    const auto left = static_cast<int32_t>(best.key >> 32), right = static_cast<int32_t>(best.key & 0xFFFFFFFF);
    const int32_t result = add_token(tokens_[static_cast<size_t>(left)] + tokens_[static_cast<size_t>(right)]);
    merges_.emplace_back(left, right);
    const std::vector<uint32_t> words = std::move(word_lists_[best.words]);
    word_lists_[best.words] = {};
    free_.push_back(best.words);
    for (const uint32_t word : words) merge_in_word(word, left, right, result);
    queue_touched();
  }

  bool may_merge(int32_t left, int32_t right) const {
    return !options_.max_token_length || lengths_[static_cast<size_t>(left)] + lengths_[static_cast<size_t>(right)] < *options_.max_token_length;
  }

  void merge_in_word(uint32_t word, int32_t left, int32_t right, int32_t result) {
    int32_t* symbols = symbols_.data() + begins_[word];
    const size_t size = sizes_[word];
    size_t out = 0;
    for (size_t i = 0; i < size; ++out) {
      if (symbols[i] != left || i + 1 >= size || symbols[i + 1] != right) {
        symbols[out] = symbols[i++];
        continue;
      }
      if (out > 0) {
        const int32_t previous = symbols[out - 1];
        change_pair(previous, left, word, -1);
        if (may_merge(previous, result)) change_pair(previous, result, word, 1);
      }
      i += 2;
      symbols[out] = result;
      if (i < size) {
        change_pair(right, symbols[i], word, -1);
        if (may_merge(result, symbols[i])) change_pair(result, symbols[i], word, 1);
      }
    }
    sizes_[word] = out;
  }

  const std::vector<WordCount>& words_;
  const BpeTrainerOptions& options_;
  std::vector<std::string> tokens_;
  std::vector<int64_t> lengths_;  // characters of each token
  std::unordered_map<std::string, int32_t> ids_;
  std::array<int32_t, 256> byte_ids_{};
  std::vector<int32_t> symbols_;  // of all words, one after the other; a word shrinks in place
  std::vector<size_t> begins_, sizes_;
  PairTable pairs_;
  std::vector<uint32_t> touched_;
  std::vector<std::vector<uint32_t>> word_lists_;  // of the candidates
  std::vector<uint32_t> free_;                     // unused ones
  std::priority_queue<Candidate> queue_;
  std::vector<std::pair<int32_t, int32_t>> merges_;
};

}  // namespace

TrainedBpe train_bpe(const std::vector<WordCount>& words, const BpeTrainerOptions& options) { return BpeTraining(words, options).run(); }

std::string every_byte() {
  std::string bytes(256, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i);
  return bytes;
}

}  // namespace frugal::text
