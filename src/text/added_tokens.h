// Tokens that are found in the text before it is cut into pieces: special tokens and those added after training.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/trie.h"

namespace frugal::text {

struct AddedToken {
  int32_t id = 0;
  std::string content = {};
  bool special = false;
  bool normalized = false;              // is looked for in the normalized text, else in the raw one
  bool lstrip = false, rstrip = false;  // takes the whitespace on that side with it
  bool single_word = false;             // only where no word character touches it
};

// A part of a text: an added token (id >= 0) or the bytes [begin, end) that are ordinary text (id = -1).
struct TextPart {
  size_t begin, end;
  int32_t id;
};

// Leftmost-longest search for many tokens at once: O(bytes x longest token), and tokens are at most 1,024 bytes.
class AddedTokenMatcher {
 public:
  // Throws Error{unsupported} for a longer one. `source` leads the message. Empty contents are left out.
  AddedTokenMatcher() { starts_.fill(false); }
  AddedTokenMatcher(std::vector<AddedToken> tokens, std::string_view source);

  // With match_special off, a special token in the text is ordinary text.
  std::vector<TextPart> split(std::string_view text, bool match_special) const;
  bool empty() const { return tokens_.empty(); }

 private:
  std::vector<AddedToken> tokens_;
  Trie trie_;  // -> index into tokens_
  std::array<bool, 256> starts_;
};

}  // namespace frugal::text
