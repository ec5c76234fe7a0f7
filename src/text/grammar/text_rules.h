// A JSON string under several rules at once: patterns it matches or must not match, a length, texts it must not be. They are
// made into one deterministic automaton over characters.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "text/grammar/json_nodes.h"
#include "text/grammar/regex.h"

namespace frugal::text::grammar {

struct TextRules {
  struct Pattern {
    const Regex* regex;
    bool wanted = true;
  };
  std::vector<Pattern> patterns = {};  // as a search, like JSON Schema's
  uint32_t min = 0, max = kUnlimited;  // characters
  std::vector<std::string> forbidden = {};
};

// The rest of a string after its opening quote, spelt in one way only; nothing if the automaton would be too large.
std::optional<NodeId> text_under_rules(const TextRules& rules, Builder& builder, JsonNodes& json);

// Whether a regular expression finds something in a text.
bool regex_finds(const Regex& regex, std::string_view text);

}  // namespace frugal::text::grammar
