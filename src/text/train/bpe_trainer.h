// Byte-level BPE from counted words (Sennrich, Haddow, Birch 2016, arXiv 1508.07909; over bytes as in GPT-2): the pair of
// neighbours that occurs most often becomes a token, again and again. The vocabulary, the ids and the merges are those of
// `tokenizers`' BpeTrainer behind its ByteLevel pre-tokenizer, ties and all, but where that depends on the order of its hash
// tables: which of equally frequent characters `limit_alphabet` drops (here those that come later in Unicode).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "text/train/word_counter.h"

namespace frugal::text {

// The names are those of `tokenizers`.
struct BpeTrainerOptions {
  int64_t vocab_size = 30000;
  int64_t min_frequency = 0;                     // a pair that occurs less often never merges
  std::vector<std::string> special_tokens = {};  // the first ids
  std::string initial_alphabet = {};             // bytes that are tokens whether they occur or not
  std::optional<int64_t> limit_alphabet = {};    // the most frequent bytes only; those that are dropped vanish from the words
  std::optional<int64_t> max_token_length = {};  // in bytes
};

struct TrainedBpe {
  std::vector<std::string> tokens;                       // in GPT-2's visible characters, by id
  std::vector<std::pair<int32_t, int32_t>> merges = {};  // ids, best first
};

// The vocabulary is larger than asked for where special tokens and alphabet are more, and smaller where the text has no more
// pairs. O(characters of the distinct words x depth of merging); progress and stop points inside.
TrainedBpe train_bpe(const std::vector<WordCount>& words, const BpeTrainerOptions& options);

// All 256.
std::string every_byte();

}  // namespace frugal::text
