// What is done to a text before it is cut: each step turns a string into a string. Invalid UTF-8 passes unchanged.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/charsmap.h"
#include "text/pattern.h"
#include "text/trie.h"
#include "text/unicode.h"

namespace frugal::text {

class NormalizerStep {
 public:
  virtual ~NormalizerStep() = default;
  virtual std::string apply(std::string text) const = 0;
};

using Normalizer = std::vector<std::unique_ptr<const NormalizerStep>>;

std::unique_ptr<const NormalizerStep> normal_form(NormalForm form);
std::unique_ptr<const NormalizerStep> lowercase_step();
std::unique_ptr<const NormalizerStep> prepend(std::string prefix);  // not before an empty text
// Exactly one of `text` and `pattern`. The result may not be longer than 32 times the input and 4 KiB.
std::unique_ptr<const NormalizerStep> replace_text(std::string text, std::string replacement);
std::unique_ptr<const NormalizerStep> replace_pattern(Pattern pattern, std::string replacement);
std::unique_ptr<const NormalizerStep> strip(bool left, bool right);
std::unique_ptr<const NormalizerStep> strip_accents();
std::unique_ptr<const NormalizerStep> visible_bytes();  // the byte-level map
// `tokenizers`' reading of the charsmap: per grapheme of less than 6 bytes, else per character, the shortest key.
std::unique_ptr<const NormalizerStep> precompiled(Charsmap charsmap);

struct BertOptions {
  bool clean_text = true, handle_chinese_chars = true, lowercase = true;
  bool strip_accents = true;
};
std::unique_ptr<const NormalizerStep> bert_normalizer(BertOptions options);

struct SentencePieceOptions {
  Charsmap charsmap{"", ""};
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool whitespace_as_suffix = false;
  std::vector<std::string> user_defined = {};  // left as they are
};
std::unique_ptr<const NormalizerStep> sentencepiece_normalizer(SentencePieceOptions options);

// Throws Error{invalid_input} when a step makes the text grow beyond its limit.
std::string apply_normalizer(const Normalizer& normalizer, std::string text);

}  // namespace frugal::text
