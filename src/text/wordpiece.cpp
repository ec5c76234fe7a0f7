// WordPiece: each word is cut greedily into the longest tokens from the left (Wu et al. 2016, arXiv 1609.08144); a word
// that cannot be covered is one unknown token. WordLevel: a piece is a token or unknown.
#include "base/error.h"
#include "text/model.h"
#include "text/trie.h"
#include "text/unicode.h"

namespace frugal::text {
namespace {

// Each start of a word is tried to the length of the longest token: longer ones would cost quadratic time.
constexpr size_t kMaxPieceBytes = 1024;

class WordPiece final : public TokenModel {
 public:
  WordPiece(const Vocabulary& vocabulary, WordPieceOptions options) : options_(std::move(options)) {
    for (int32_t id = 0; id < vocabulary.size(); ++id) {
      if (!options_.control.empty() && options_.control[static_cast<size_t>(id)]) continue;
      const std::string_view text = vocabulary.text(id);
      if (text.size() > kMaxPieceBytes) fail(ErrorKind::unsupported, "the vocabulary: token {} has {} bytes, more than {}", id, text.size(), kMaxPieceBytes);
      if (vocabulary.find(text) == id) trie_.insert(text, id);
    }
    word_start_ = trie_.walk(Trie::kRoot, options_.word_prefix);
    continuing_ = trie_.walk(Trie::kRoot, options_.continuing_prefix);
  }

  void encode(std::string_view word, std::vector<int32_t>& ids) const override {
    if (word.empty()) return;
    const size_t before = ids.size();
    if (count_chars(word) > options_.max_chars || !cover(word, ids)) {
      ids.resize(before);
      ids.push_back(options_.unk);
    }
  }

 private:
  static size_t count_chars(std::string_view word) {
    size_t count = 0;
    for (const char c : word) count += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
    return count;
  }

  // A token must end where a character does: tokens are UTF-8 and so is the word, else nothing matches.
  bool cover(std::string_view word, std::vector<int32_t>& ids) const {
    for (size_t start = 0; start < word.size();) {
      // A mark of word starts in the text itself is no start: "##▁" would have to be a token.
      if (start > 0 && !options_.word_prefix.empty() && word.substr(start).starts_with(options_.word_prefix)) return false;
      int32_t node = start == 0 ? word_start_ : continuing_;
      int32_t id = Trie::kNone;
      size_t end = start;
      for (size_t at = start; at < word.size() && node != Trie::kNone;) {
        node = trie_.child(node, static_cast<uint8_t>(word[at++]));
        if (node != Trie::kNone && trie_.value(node) != Trie::kNone) {
          id = trie_.value(node);
          end = at;
        }
      }
      if (id == Trie::kNone) return false;
      ids.push_back(id);
      start = end;
    }
    return true;
  }

  WordPieceOptions options_;
  Trie trie_;
  int32_t word_start_, continuing_;
};

class WordLevel final : public TokenModel {
 public:
  WordLevel(const Vocabulary& vocabulary, WordLevelOptions options) : vocabulary_(vocabulary), options_(std::move(options)) {}

  void encode(std::string_view piece, std::vector<int32_t>& ids) const override {
    const int32_t id = vocabulary_.find(piece);
    if (id >= 0 && (options_.control.empty() || !options_.control[static_cast<size_t>(id)])) {
      ids.push_back(id);
    } else if (options_.unk) {
      ids.push_back(*options_.unk);
    } else {
      fail(ErrorKind::invalid_input, "\"{}\" is not in the vocabulary, which has no token for the unknown", printable(piece));
    }
  }

 private:
  const Vocabulary& vocabulary_;
  WordLevelOptions options_;
};

}  // namespace

std::unique_ptr<const TokenModel> make_wordpiece(const Vocabulary& vocabulary, WordPieceOptions options) {
  return std::make_unique<WordPiece>(vocabulary, std::move(options));
}

std::unique_ptr<const TokenModel> make_wordlevel(const Vocabulary& vocabulary, WordLevelOptions options) {
  return std::make_unique<WordLevel>(vocabulary, std::move(options));
}

}  // namespace frugal::text
