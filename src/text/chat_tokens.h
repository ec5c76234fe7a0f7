// Token ids of a rendered chat template. Special tokens are recognised only where the whole token lies in template text;
// what a user typed is never more than text. Between two special tokens the text is tokenized as one piece, because merges
// cross the borders of segments.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace frugal::text {

// A special token of the template, or what was tokenized as one piece between two: the bytes [begin, end) of the joined text
// are the tokens [first, last).
struct EncodedPart {
  size_t begin, end;
  size_t first, last;
  bool special;
};

// For many texts: the special tokens are gathered once. Immutable and thread-safe; the tokenizer must outlive it.
class SegmentEncoder {
 public:
  explicit SegmentEncoder(const Tokenizer& tokenizer);
  // More tokens than `limit`: throws TooManyTokens. `parts` is emptied and filled.
  std::vector<int32_t> encode(const std::vector<RenderedSegment>& segments, size_t limit = SIZE_MAX, std::vector<EncodedPart>* parts = nullptr) const;

 private:
  struct Special {
    std::string_view text;
    int32_t id;
  };
  const Tokenizer* tokenizer_;
  std::vector<Special> specials_;   // longest first, so that the first match at a place is the longest
  std::array<bool, 256> starts_{};  // by their first byte
};

// Of one text.
std::vector<int32_t> encode_segments(const Tokenizer& tokenizer, const std::vector<RenderedSegment>& segments, size_t limit = SIZE_MAX);

}  // namespace frugal::text
