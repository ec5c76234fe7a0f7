#include "text/chat_tokens.h"

#include <algorithm>
#include <string>

namespace frugal::text {

SegmentEncoder::SegmentEncoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.is_special(id) && !tokenizer.token_text(id).empty()) specials_.push_back({tokenizer.token_text(id), id});
  }
  std::stable_sort(specials_.begin(), specials_.end(), [](const Special& a, const Special& b) { return a.text.size() > b.text.size(); });
  for (const Special& special : specials_) starts_[static_cast<unsigned char>(special.text[0])] = true;
}

std::vector<int32_t> SegmentEncoder::encode(const std::vector<RenderedSegment>& segments, size_t limit, std::vector<EncodedPart>* parts) const {
  if (parts) parts->clear();
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
    const std::vector<int32_t> part =
        tokenizer_->encode(std::string_view(text).substr(pending, end - pending), {.add_special = false, .at_start = pending == 0, .limit = limit});
    if (parts) parts->push_back({pending, end, ids.size(), ids.size() + part.size(), false});
    ids.insert(ids.end(), part.begin(), part.end());
    if (ids.size() > limit) throw TooManyTokens(ids.size(), limit);
  };
  for (size_t i = 0; i < text.size();) {
    const Special* found = nullptr;
    if (starts_[static_cast<unsigned char>(text[i])] && !from_data[i]) {
      for (const Special& special : specials_) {
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
    if (parts) parts->push_back({i, i + found->text.size(), ids.size(), ids.size() + 1, true});
    ids.push_back(found->id);
    i += found->text.size();
    pending = i;
  }
  flush(text.size());
  return ids;
}

std::vector<int32_t> encode_segments(const Tokenizer& tokenizer, const std::vector<RenderedSegment>& segments, size_t limit) {
  return SegmentEncoder(tokenizer).encode(segments, limit);
}

}  // namespace frugal::text
