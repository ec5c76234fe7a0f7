// Unigram vocabularies from counted words (Kudo 2018, arXiv 1804.10959), by the algorithm of `tokenizers`' UnigramTrainer, which
// follows SentencePiece's: many seeds, expectation maximization, and the pieces whose loss would cost the likelihood least
// dropped, until the vocabulary has its size. The pieces and scores are those of `tokenizers` up to rounding, but where that
// depends on the order of its hash tables: characters that training dropped and that come back score min_score + k x 0.0001 in
// some order (here that of Unicode), and its sums are in another order in each run. One difference is on purpose: a piece with the
// text of a special token is left out, where `tokenizers` puts the same token into the vocabulary twice.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "text/train/unigram_lattice.h"
#include "text/train/word_counter.h"

namespace frugal::text {

// The names are those of `tokenizers`.
struct UnigramTrainerOptions {
  int64_t vocab_size = 8000;
  std::vector<std::string> special_tokens = {};  // the first ids
  std::string unk_token = {};                    // the very first id where special_tokens lacks it; empty: none
  std::string initial_alphabet = {};             // UTF-8: characters that are tokens whether they occur or not
  int64_t max_piece_length = 16;                 // in characters
  double shrinking_factor = 0.75;                // of the pieces stay in each round
  int64_t n_sub_iterations = 2;                  // of expectation maximization in a round
  int64_t seed_size = 1'000'000;                 // pieces at the start
};

struct TrainedUnigram {
  std::vector<UnigramPiece> pieces;  // by id; special tokens score 0
  std::optional<int32_t> unk_id;
};

// Throws Error{invalid_input} where the vocabulary cannot hold the special tokens and all characters. Progress and stop points
// inside; runs on the team.
TrainedUnigram train_unigram(const std::vector<WordCount>& words, const UnigramTrainerOptions& options);

// Where training starts: every character, then the repeated substrings of the distinct words by occurrences x length.
std::vector<UnigramPiece> seed_pieces(const std::vector<WordCount>& words, const UnigramTrainerOptions& options);

}  // namespace frugal::text
