#include "text/chat_tokens.h"

#include <algorithm>
#include <string>

namespace frugal::text {
namespace {

struct Special {
  std::string_view text;
  int32_t id;
};

// Longest first, so that the first match at a place is the longest.
std::vector<Special> specials_of(const Tokenizer& tokenizer) {
  std::vector<Special> result;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.is_special(id) && !tokenizer.token_text(id).empty()) result.push_back({tokenizer.token_text(id), id});
  }
  std::stable_sort(result.begin(), result.end(), [](const Special& a, const Special& b) { return a.text.size() > b.text.size(); });
  return result;
}

}  // namespace

std::vector<int32_t> encode_segments(const Tokenizer& tokenizer, const std::vector<RenderedSegment>& segments, size_t limit) {
  const std::vector<Special> specials = specials_of(tokenizer);
  bool starts[256] = {};
  for (const Special& special : specials) starts[static_cast<unsigned char>(special.text[0])] = true;
  std::string text;
  std::vector<bool> from_data;
  for (const RenderedSegment& segment : segments) {
    text += segment.text;
    from_data.resize(text.size(), segment.from_data);
  }
  std::vector<int32_t> ids;
  size_t pending = 0;  // text from here on is not yet encoded
  const auto flush = [&](size_t end) {
    if (end == pending) return;
    const std::vector<int32_t> part = tokenizer.encode(std::string_view(text).substr(pending, end - pending), {.add_special = false, .limit = limit});
    ids.insert(ids.end(), part.begin(), part.end());
    if (ids.size() > limit) throw TooManyTokens(ids.size(), limit);
  };
  for (size_t i = 0; i < text.size();) {
    const Special* found = nullptr;
    if (starts[static_cast<unsigned char>(text[i])] && !from_data[i]) {
      for (const Special& special : specials) {
        if (!std::string_view(text).substr(i).starts_with(special.text)) continue;
        const auto begin = from_data.begin() + static_cast<std::ptrdiff_t>(i);
        if (std::none_of(begin, begin + static_cast<std::ptrdiff_t>(special.text.size()), [](bool data) { return data; })) {
          found = &special;
          break;
        }
      }
    }
    if (!found) {
      ++i;
      continue;
    }
    flush(i);
    ids.push_back(found->id);
    i += found->text.size();
    pending = i;
  }
  flush(text.size());
  return ids;
}

}  // namespace frugal::text
