// Cutting a text into the pieces within which a model may merge. A PreTokenizer is a list of steps; each step sees the
// pieces of the one before.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/pattern.h"

namespace frugal::text {

// Pieces are ranges of one buffer, in order; what lies between them was removed.
struct Pieces {
  std::string text;
  std::vector<Range> ranges;
  bool at_start = true;    // the first piece is the start of the whole input (no token before it)
  size_t most = SIZE_MAX;  // more pieces than that need not be found,
  bool cut = false;        // and were not: others follow
};

class SplitStep {
 public:
  virtual ~SplitStep() = default;
  virtual void apply(Pieces& pieces) const = 0;
};

struct PreTokenizer {
  std::vector<std::unique_ptr<const SplitStep>> steps;
  // The last thing is the byte-level map: the model works on the bytes themselves.
  bool byte_level = false;
};

// What becomes of a match of a delimiter (`tokenizers` names).
enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

// Matches are delimiters; inverted, what lies between them is.
std::unique_ptr<const SplitStep> split_by_pattern(std::shared_ptr<const Pattern> pattern, SplitBehavior behavior, bool invert);
std::unique_ptr<const SplitStep> split_by_text(std::string delimiter, SplitBehavior behavior, bool invert);

enum class CharClass { digit, whitespace, bert_punctuation };
std::unique_ptr<const SplitStep> split_by_class(CharClass char_class, SplitBehavior behavior);

// Patterns that take quadratic time in any backtracking engine, written out: whitespace that ends a line (`\s+$`), and
// digits in groups of three from the right (`\d{1,3}(?=(?:\d{3})*\b)`).
std::unique_ptr<const SplitStep> split_trailing_whitespace();
std::unique_ptr<const SplitStep> split_digit_groups();
// The hand-written step for a pattern of that kind, else null.
std::unique_ptr<const SplitStep> split_by_known_slow_pattern(std::string_view regex);

// A space before each piece that does not begin with one (ByteLevel's add_prefix_space).
std::unique_ptr<const SplitStep> add_prefix_space();
// The byte-level map in the middle of a sequence (Falcon): later steps see the visible characters.
std::unique_ptr<const SplitStep> map_bytes();

enum class PrependScheme { never, first, always };
// Spaces become `replacement`, which may be put in front; `split` cuts before each replacement.
std::unique_ptr<const SplitStep> metaspace(std::string replacement, PrependScheme scheme, bool split);

// A step makes at most about `most` pieces: then the first ones, whole, and `cut`.
Pieces pre_tokenize(const PreTokenizer& pre_tokenizer, std::string text, bool at_start, size_t most = SIZE_MAX);

}  // namespace frugal::text
