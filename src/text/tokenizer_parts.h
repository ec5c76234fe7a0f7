// What the readers fill in and Tokenizer runs, in the order of encoding.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/added_tokens.h"
#include "text/detokenizer.h"
#include "text/model.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace frugal::text {

struct TokenizerParts {
  Vocabulary vocabulary;         // added tokens included
  std::vector<TokenKind> kinds;  // per id; control and unknown are "special"
  AddedTokenMatcher raw_added;   // looked for in the text as it is
  Normalizer normalizer;
  AddedTokenMatcher normalized_added;  // looked for in the normalized text
  PreTokenizer pre_tokenizer;
  std::unique_ptr<const TokenModel> model;  // refers to `vocabulary`: parts must not move once it is made
  std::vector<int32_t> prefix, suffix;      // around the text with add_special
  Detokenizer detokenizer;
  SpecialTokens special;
};

// Per id: control or unknown, which text must not become unless it is parsed for them.
std::vector<bool> control_ids(const TokenizerParts& parts);

// Ids whose text is known to end a turn ("<|im_end|>", "<|eot_id|>", ...), and eos; fills special.end_of_generation.
void find_end_of_generation(TokenizerParts& parts, const std::vector<int32_t>& named);

}  // namespace frugal::text
