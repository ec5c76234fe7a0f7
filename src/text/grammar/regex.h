// Regular expressions: the part of ECMAScript's and Python's that describes a regular language of whole texts.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "text/grammar/builder.h"
#include "text/grammar/char_set.h"

namespace frugal::text::grammar {

struct Regex {
  enum class Kind : uint8_t { empty, chars, sequence, alternatives, repeat };
  struct Node {
    Kind kind = Kind::empty;
    CharSet set = {};
    std::vector<uint32_t> children = {};
    uint32_t min = 0, max = 0;  // repeat
  };
  struct Branch {
    uint32_t root = 0;
    bool at_start = false, at_end = false;  // ^ and $
  };
  std::vector<Node> nodes = {};
  std::vector<Branch> branches = {};  // the alternatives of the whole expression
};

// `what` leads error messages. Errors: invalid_input (broken), unsupported (lookaround, references, \b, flags ..., by name and position).
Regex parse_regex(std::string_view pattern, const std::string& what);

// The nodes for texts that match as a whole (`search` false) or that hold a match. `encode` makes the node of one character.
using EncodeChar = std::function<NodeId(const CharSet&)>;
NodeId regex_nodes(const Regex& regex, bool search, Builder& builder, const EncodeChar& encode);

// The least and the largest number of characters of a text that matches; largest may be kUnlimited.
struct RegexLength {
  uint64_t min = 0, max = 0;
};
RegexLength regex_length(const Regex& regex, bool search);

}  // namespace frugal::text::grammar
