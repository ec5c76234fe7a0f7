#include "text/vocabulary.h"

#include <utility>

namespace frugal::text {

Vocabulary::Vocabulary(std::vector<std::string> texts, bool first_wins) : texts_(std::move(texts)) {
  ids_.reserve(texts_.size());
  for (size_t id = 0; id < texts_.size(); ++id) {
    const auto [it, is_new] = ids_.emplace(texts_[id], static_cast<int32_t>(id));
    if (!is_new && !first_wins) it->second = static_cast<int32_t>(id);
  }
}

int parse_byte_token(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
  int value = 0;
  for (const char c : text.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

}  // namespace frugal::text
