// The nodes of JSON texts. Between the tokens of JSON stands nothing, one space, or a line break with an indentation of at most
// kMaxIndent; nothing stands around the whole text.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <unordered_map>

#include "base/json.h"
#include "text/grammar/builder.h"

namespace frugal::text::grammar {

// A decimal number that bounds another: digits before and after the point, no zeros around them ("0" alone before the point).
struct DecimalBound {
  bool negative = false;
  std::string whole = "0", fraction = {};
  bool exclusive = false;
};
// Of a JSON number; a double means its shortest decimal form. Nothing if it has more than 400 digits.
std::optional<DecimalBound> decimal_bound(const Json& number, bool exclusive);
int compare(const DecimalBound& a, const DecimalBound& b);  // of the values: -1, 0, 1

struct NumberRange {
  bool integer = false;
  std::optional<DecimalBound> min = {}, max = {};
};

class JsonNodes {
 public:
  static constexpr uint32_t kMaxIndent = 32;
  static constexpr uint32_t kMaxDigits = 20;       // before the point, and after it
  static constexpr uint32_t kMaxExactDigits = 15;  // of a number that is not an integer and has bounds: all doubles so far differ

  explicit JsonNodes(Builder& builder) : builder_(builder) {}

  NodeId space();
  NodeId any_string() { return string_of_length(0, kUnlimited); }
  NodeId string_of_length(uint32_t min, uint32_t max);  // in characters
  // One character of a string, spelt in one way only: as itself, or by the shortest escape where JSON demands one.
  NodeId plain_char(const CharSet& set);
  // The rest of a key, from its first character to its closing quote, which is none of `names`; spelt in one way only.
  NodeId key_unlike(const std::vector<std::string>& names);
  NodeId number(const NumberRange& range);
  NodeId any_value();
  NodeId any_object();
  NodeId any_array();
  // This very value; members in the order given.
  NodeId value(const Json& value);
  NodeId quoted(std::string_view text);  // a string, spelt in one way only

  NodeId comma();                     // with the space behind it
  NodeId in_brackets(NodeId inside);  // `inside` is empty or ends with space
  NodeId in_braces(NodeId inside);
  NodeId colon();
  NodeId any_pair();

 private:
  NodeId any_char();
  NodeId any_number(bool integer);
  NodeId any_number_of(NodeId item);  // with commas, in brackets or braces
  NodeId magnitude(const std::optional<DecimalBound>& min, const std::optional<DecimalBound>& max, bool integer);

  Builder& builder_;
  std::optional<NodeId> space_, any_value_, any_object_, any_array_, any_char_, integer_, number_;
  uint32_t char_group_ = 0;
  std::unordered_map<uint64_t, NodeId> strings_;
  std::map<std::pair<uint32_t, CharSet>, NodeId> plain_chars_;  // by group
};

}  // namespace frugal::text::grammar
