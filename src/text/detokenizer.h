// From token texts back to a text: the steps of a tokenizer.json "decoder", on bytes, so that parts of characters survive.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace frugal::text {

struct DecoderStep {
  enum class Kind { byte_level, byte_fallback, replace, strip, fuse, metaspace, wordpiece, word_end };
  Kind kind;
  std::string text = {};         // replace: what; strip, metaspace: the character; wordpiece: prefix; word_end: suffix
  std::string replacement = {};  // replace
  size_t start = 0, stop = 0;    // strip: how many at each end, at most
  bool flag = false;             // metaspace: first token loses its mark; wordpiece: clean up spaces
};

using Detokenizer = std::vector<DecoderStep>;

struct DecodedToken {
  std::string text = {};
  bool verbatim = false;  // an added token: no byte map
};

// `whole`: tokens are a complete sequence; else they stand somewhere inside a text, and what is done only at its start
// and end is left out.
std::string detokenize(const Detokenizer& steps, std::vector<DecodedToken> tokens, bool whole);

}  // namespace frugal::text
