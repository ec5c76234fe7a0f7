// The two-way map between ids and token texts, and the numbers that GGUF and SentencePiece keep per token.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace frugal::text {

// The values are those of SentencePiece and of tokenizer.ggml.token_type.
enum class TokenKind : uint8_t { undefined = 0, normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

class Vocabulary {
 public:
  // Texts may repeat: the first id wins the lookup if `first_wins`, else the last.
  Vocabulary() = default;
  Vocabulary(std::vector<std::string> texts, bool first_wins);
  Vocabulary(const Vocabulary&) = delete;
  Vocabulary& operator=(const Vocabulary&) = delete;
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;

  int32_t size() const { return static_cast<int32_t>(texts_.size()); }
  std::string_view text(int32_t id) const { return texts_[static_cast<size_t>(id)]; }
  size_t longest() const {  // text, in bytes
    size_t bytes = 0;
    for (const std::string& text : texts_) bytes = std::max(bytes, text.size());
    return bytes;
  }
  int32_t find(std::string_view text) const {  // -1 when absent
    const auto it = ids_.find(text);
    return it == ids_.end() ? -1 : it->second;
  }

 private:
  std::vector<std::string> texts_;  // never changes after construction: ids_ points into it
  std::unordered_map<std::string_view, int32_t> ids_;
};

// 0..255 of "<0x41>", else -1.
int parse_byte_token(std::string_view text);

}  // namespace frugal::text
