// The models: a piece of text to ids. Each is immutable after construction.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/vocabulary.h"

namespace frugal::text {

class TokenModel {
 public:
  virtual ~TokenModel() = default;
  virtual void encode(std::string_view piece, std::vector<int32_t>& ids) const = 0;
  // At most as many ids as encode() would give, known without encoding.
  virtual size_t least_ids(std::string_view) const { return 0; }
};

// How characters that the vocabulary lacks are written.
struct UnknownOptions {
  std::optional<int32_t> unk = {};
  bool byte_fallback = false;  // "<0xE2>" ... when the vocabulary has all of the character's bytes
  bool fuse_unk = false;       // neighbours that are unknown share one unk

  // The bytes that one id stands for, at most; byte_ids: those of byte_token_ids(), or none. SIZE_MAX: an unknown run may be one id, or none.
  size_t most_bytes(const Vocabulary& vocabulary, const std::vector<int32_t>& byte_ids) const;
};

struct Merge {
  int32_t left, right, result;  // symbol ids
  int32_t rank;                 // lower merges first; equal ranks from the left
};

struct BpeOptions {
  std::string source = {};          // leads error messages
  bool byte_level = false;          // pieces are bytes, the symbols GPT-2's visible characters
  bool ignore_merges = false;       // a piece that is a token is that token, whatever the merges say
  std::string subword_prefix = {};  // of all characters but the first ("##"), rarely used
  std::string end_of_word = {};     // suffix of the last character ("</w>")
  UnknownOptions unknown = {};
  std::vector<bool> control = {};  // per id: never the id of a whole piece (ignore_merges); empty = none
};

// Merges as pairs of token texts, best first. Throws Error{corrupt_file} for a merge of or into a text that is no token.
std::unique_ptr<const TokenModel> make_bpe(const Vocabulary& vocabulary, const std::vector<std::pair<std::string_view, std::string_view>>& merges,
                                           BpeOptions options);

// SentencePiece BPE: any two neighbours whose join is a token merge, best score first. `mergeable[id]` says which tokens
// may come of it.
std::unique_ptr<const TokenModel> make_score_bpe(const Vocabulary& vocabulary, const std::vector<float>& scores, const std::vector<bool>& mergeable,
                                                 BpeOptions options);

struct UnigramOptions {
  std::string source = {};
  UnknownOptions unknown = {};
  double min_score = 0;  // of all normal tokens; an unknown character scores 10 less
};
// The segmentation with the best sum of scores (Kudo 2018). Tokens that are not `usable` are never chosen.
std::unique_ptr<const TokenModel> make_unigram(const Vocabulary& vocabulary, std::vector<double> scores, const std::vector<bool>& usable,
                                               UnigramOptions options);

struct WordPieceOptions {
  std::string source = {};
  std::string continuing_prefix = "##";
  std::string word_prefix = {};  // GGUF: words begin with "▁" and continuations have no mark
  int32_t unk = 0;
  size_t max_chars = 100;          // a longer word is unk
  std::vector<bool> control = {};  // per id: never found in a text; empty = none
};
std::unique_ptr<const TokenModel> make_wordpiece(const Vocabulary& vocabulary, WordPieceOptions options);

struct WordLevelOptions {
  std::optional<int32_t> unk = {};
  std::vector<bool> control = {};  // as above
};
std::unique_ptr<const TokenModel> make_wordlevel(const Vocabulary& vocabulary, WordLevelOptions options);

// The token of a byte (0..255), "<0x00>".."<0xFF>"; and the ids of all 256, -1 where absent.
std::string byte_token(int byte);
std::vector<int32_t> byte_token_ids(const Vocabulary& vocabulary);

}  // namespace frugal::text
