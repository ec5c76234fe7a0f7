// SentencePiece's precompiled_charsmap: a double array (Darts-clone) from byte strings to their replacements.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace frugal::text {

class Charsmap {
 public:
  // Layout: u32 size of the trie in bytes, the trie's 32-bit units, then NUL-terminated replacements. Everything that
  // can be reached is checked here: units in range, no cycle, at most 256 bytes deep, replacements inside the blob.
  // Throws Error{corrupt_file}; an empty blob is the empty map.
  Charsmap(std::string_view blob, std::string_view name);

  struct Match {
    size_t length = 0;  // bytes of the key
    std::string_view replacement;
  };
  std::optional<Match> longest(std::string_view text) const;
  std::optional<Match> shortest(std::string_view text) const;
  bool empty() const { return units_.empty(); }
  const std::string& blob() const { return blob_; }

 private:
  template <typename Visit>
  void walk(std::string_view text, Visit visit) const;
  void validate(std::string_view name) const;
  std::string_view replacement(uint32_t offset) const;

  std::string blob_;
  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace frugal::text
