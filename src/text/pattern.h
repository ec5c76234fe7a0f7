// Regular expressions of tokenizer files, on PCRE2, with the meaning that they have in `tokenizers` (Oniguruma, Ruby
// syntax) and a bound on the time. A trusted pattern (our own table) runs compiled to machine code. Any other is first
// read by a checker that refuses what can be exponential or means something else in PCRE2, then runs interpreted with a
// budget of steps that grows linearly with the text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace frugal::text {

using Range = std::pair<size_t, size_t>;  // [begin, end) in bytes

class Pattern {
 public:
  // Throws Error{unsupported} for a construct that is refused and Error{corrupt_file} for one that does not compile;
  // `name` leads the message.
  Pattern(std::string_view regex, std::string_view name, bool trusted);
  ~Pattern();
  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;

  // Appends the non-empty, non-overlapping matches from left to right, the first `most` of them, offset by `base`. `text` must be valid UTF-8.
  // Throws Error{invalid_input} when the budget of an untrusted pattern is used up.
  void find_all(std::string_view text, size_t base, std::vector<Range>& matches, size_t most = SIZE_MAX) const;
  const std::string& source() const { return source_; }

 private:
  void find_trusted(std::string_view text, size_t base, std::vector<Range>& matches, size_t most) const;
  void find_bounded(std::string_view text, size_t base, std::vector<Range>& matches, size_t most) const;

  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
  std::string source_;
};

// The pattern in PCRE2's words; throws as the constructor of Pattern does. Exposed for its test.
std::string translate_pattern(std::string_view regex, std::string_view name, bool trusted);

}  // namespace frugal::text
