// Token ids of a rendered chat template. Special tokens are recognised only where the whole token lies in template text;
// what a user typed is never more than text. Between two special tokens the text is tokenized as one piece, because merges
// cross the borders of segments.
#pragma once

#include <cstdint>
#include <vector>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace frugal::text {

// More tokens than `limit`: throws TooManyTokens.
std::vector<int32_t> encode_segments(const Tokenizer& tokenizer, const std::vector<RenderedSegment>& segments, size_t limit = SIZE_MAX);

}  // namespace frugal::text
