#include "text/added_tokens.h"

#include <algorithm>

#include "base/error.h"
#include "text/unicode.h"

namespace frugal::text {
namespace {

constexpr size_t kMaxTokenBytes = 1024;

bool is_word_char(uint32_t code) {
  return code == '_' || is_numeric(code) || is_mark(code) || (code < 0x80 && ((code | 0x20) >= 'a' && (code | 0x20) <= 'z')) ||
         (code >= 0x80 && !is_whitespace(code) && !is_bert_punctuation(code) && !is_bert_control(code));
}

// The character that ends at `end`.
DecodedChar char_before(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && end - begin < 4 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  return decode_char(text.substr(0, end), begin);
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens, std::string_view source) : tokens_(std::move(tokens)) {
  starts_.fill(false);
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& content = tokens_[i].content;
    if (content.size() > kMaxTokenBytes) {
      fail(ErrorKind::unsupported, "{}: added token {} has {} bytes, more than {}", source, tokens_[i].id, content.size(), kMaxTokenBytes);
    }
    if (content.empty()) continue;
    trie_.insert(content, static_cast<int32_t>(i));
    starts_[static_cast<uint8_t>(content[0])] = true;
  }
}

std::vector<TextPart> AddedTokenMatcher::split(std::string_view text, bool match_special) const {
  std::vector<TextPart> parts;
  size_t done = 0;  // everything before is in `parts`
  for (size_t at = 0; at < text.size();) {
    if (!starts_[static_cast<uint8_t>(text[at])]) {
      ++at;
      continue;
    }
    int32_t found = Trie::kNone;
    size_t match_end = at;
    int32_t node = Trie::kRoot;
    for (size_t i = at; i < text.size();) {
      node = trie_.child(node, static_cast<uint8_t>(text[i++]));
      if (node == Trie::kNone) break;
      if (trie_.value(node) != Trie::kNone) {
        found = trie_.value(node);
        match_end = i;
      }
    }
    if (found == Trie::kNone) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(found)];
    size_t begin = at, end = match_end;
    at = match_end;
    if (token.special && !match_special) continue;
    if (token.single_word && ((begin > 0 && is_word_char(char_before(text, begin).code)) || (end < text.size() && is_word_char(decode_char(text, end).code)))) {
      continue;
    }
    if (token.lstrip) {
      while (begin > done && is_whitespace(char_before(text, begin).code)) begin -= char_before(text, begin).length;
    }
    if (token.rstrip) {
      while (end < text.size() && is_whitespace(decode_char(text, end).code)) end += decode_char(text, end).length;
    }
    begin = std::max(begin, done);
    if (begin > done) parts.push_back({done, begin, -1});
    parts.push_back({begin, end, token.id});
    done = end;
    at = std::max(at, done);
  }
  if (done < text.size()) parts.push_back({done, text.size(), -1});
  return parts;
}

}  // namespace frugal::text
