#include "text/grammar/token_bytes.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace frugal::text {

TokenBytes::TokenBytes(const Tokenizer& tokenizer, std::span<const int32_t> shown) : end_ids_(tokenizer.special().end_of_generation) {
  const std::optional<int32_t> unknown = tokenizer.special().unk;
  texts_.resize(static_cast<size_t>(tokenizer.vocab_size()));
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!tokenizer.is_special(id) && id != unknown && !is_end(id)) texts_[static_cast<size_t>(id)] = tokenizer.piece(id);
  }
  for (const int32_t id : shown) texts_[static_cast<size_t>(id)] = std::string(tokenizer.token_text(id));
  build();
}

TokenBytes::TokenBytes(std::vector<std::string> texts, std::vector<int32_t> end_ids) : texts_(std::move(texts)), end_ids_(std::move(end_ids)) {
  for (const int32_t id : end_ids_) {
    if (id < 0 || id >= size()) fail(ErrorKind::invalid_input, "vocabulary: end id {} is outside 0..{}", id, size() - 1);
    texts_[static_cast<size_t>(id)].clear();
  }
  build();
}

bool TokenBytes::is_end(int32_t id) const { return std::find(end_ids_.begin(), end_ids_.end(), id) != end_ids_.end(); }

void TokenBytes::build() {
  constexpr size_t kMaxLength = 4096;
  std::vector<int32_t> order;
  for (int32_t id = 0; id < size(); ++id) {
    const std::string& text = texts_[static_cast<size_t>(id)];
    if (text.size() > kMaxLength) fail(ErrorKind::unsupported, "vocabulary: token {} has {} bytes, {} at most", id, text.size(), kMaxLength);
    if (!text.empty()) order.push_back(id);
    longest_ = std::max(longest_, text.size());
  }
  std::sort(order.begin(), order.end(),
            [&](int32_t a, int32_t b) { return std::tie(texts_[static_cast<size_t>(a)], a) < std::tie(texts_[static_cast<size_t>(b)], b); });
  nodes_.push_back({0, 0, 0, 0});
  std::vector<uint32_t> path = {0};
  std::string_view before;
  const auto close = [&](size_t depth) {
    while (path.size() > depth + 1) {
      nodes_[path.back()].end = static_cast<uint32_t>(nodes_.size());
      path.pop_back();
    }
  };
  for (const int32_t id : order) {
    const std::string_view text = texts_[static_cast<size_t>(id)];
    const auto shared = static_cast<size_t>(std::mismatch(before.begin(), before.end(), text.begin(), text.end()).first - before.begin());
    close(shared);
    for (size_t i = shared; i < text.size(); ++i) {
      path.push_back(static_cast<uint32_t>(nodes_.size()));
      nodes_.push_back({0, static_cast<uint32_t>(token_ids_.size()), static_cast<uint16_t>(i + 1), static_cast<uint8_t>(text[i])});
    }
    token_ids_.push_back(id);
    before = text;
  }
  close(0);
  nodes_[0].end = static_cast<uint32_t>(nodes_.size());
  nodes_.push_back({0, static_cast<uint32_t>(token_ids_.size()), 0, 0});
}

}  // namespace frugal::text
