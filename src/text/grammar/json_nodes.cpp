#include "text/grammar/json_nodes.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "text/unicode.h"

namespace frugal::text::grammar {

namespace {

ByteSet byte_set(std::string_view members) {
  ByteSet set;
  for (const char c : members) set.set(static_cast<uint8_t>(c));
  return set;
}
const ByteSet kDigits = byte_set("0123456789"), kHex = byte_set("0123456789abcdefABCDEF");

// Escapes with a letter: what they stand for.
constexpr std::pair<char, char> kLetterEscapes[] = {{'"', '"'}, {'\\', '\\'}, {'\b', 'b'}, {'\f', 'f'}, {'\n', 'n'}, {'\r', 'r'}, {'\t', 't'}};

}  // namespace

NodeId JsonNodes::space() {
  if (!space_) {
    const GroupScope scope(builder_);
    const NodeId indent = builder_.repeat(builder_.bytes(byte_set(" \t")), 0, kMaxIndent);
    space_ = builder_.alternatives({builder_.empty(), builder_.byte(' '), builder_.sequence(builder_.byte('\n'), indent)});
  }
  return *space_;
}

NodeId JsonNodes::comma() { return builder_.sequence(builder_.byte(','), space()); }
NodeId JsonNodes::colon() { return builder_.sequence(builder_.byte(':'), space()); }
NodeId JsonNodes::in_brackets(NodeId inside) { return builder_.sequence({builder_.byte('['), space(), inside, builder_.byte(']')}); }
NodeId JsonNodes::in_braces(NodeId inside) { return builder_.sequence({builder_.byte('{'), space(), inside, builder_.byte('}')}); }

NodeId JsonNodes::any_char() {
  if (any_char_) return *any_char_;
  const CharSet plain = CharSet({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}).complement();
  const NodeId hex = builder_.bytes(kHex), hex2 = builder_.sequence(hex, hex), d = builder_.bytes(byte_set("dD"));
  const NodeId ordinary = builder_.alternatives({
      builder_.sequence(builder_.bytes(kHex & ~byte_set("dD")), builder_.sequence(hex, hex2)),
      builder_.sequence({d, builder_.bytes(byte_set("01234567")), hex2}),
  });
  const NodeId pair = builder_.sequence({d, builder_.bytes(byte_set("89abAB")), hex2, builder_.literal("\\u"), d, builder_.bytes(byte_set("cdefCDEF")), hex2});
  const NodeId escape =
      builder_.alternatives({builder_.bytes(byte_set("\"\\/bfnrt")), builder_.sequence(builder_.byte('u'), builder_.alternatives({ordinary, pair}))});
  any_char_ = builder_.alternatives({builder_.character(plain), builder_.sequence(builder_.byte('\\'), escape)});
  return *any_char_;
}

NodeId JsonNodes::string_of_length(uint32_t min, uint32_t max) {
  const auto [it, fresh] = strings_.try_emplace(static_cast<uint64_t>(min) << 32 | max, 0);
  if (fresh) {
    if (char_group_ == 0) {
      const GroupScope scope(builder_);
      char_group_ = builder_.group();
    }
    NodeId body;
    {
      const GroupScope scope(builder_, char_group_);
      body = any_char();
    }
    const GroupScope scope(builder_);
    it->second = builder_.sequence({builder_.byte('"'), builder_.repeat(body, min, max), builder_.byte('"')});
  }
  return it->second;
}

NodeId JsonNodes::plain_char(const CharSet& set) {
  const auto [known, fresh] = plain_chars_.try_emplace({builder_.group(), set}, 0);
  if (!fresh) return known->second;
  const CharSet plain = CharSet({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}).complement();
  std::vector<NodeId> parts = {builder_.character(set.intersect(plain))};
  ByteSet letters;
  for (const auto& [c, letter] : kLetterEscapes) {
    if (set.contains(static_cast<uint8_t>(c))) letters.set(static_cast<uint8_t>(letter));
  }
  std::vector<NodeId> escapes = {builder_.bytes(letters)};
  for (const char high : {'0', '1'}) {
    ByteSet low;
    for (uint32_t digit = 0; digit < 16; ++digit) {
      const uint32_t c = static_cast<uint32_t>(high - '0') * 16 + digit;
      const bool letter = (c >= 8 && c <= 13 && c != 11);
      if (!letter && set.contains(c)) low.set(static_cast<uint8_t>("0123456789abcdef"[digit]));
    }
    escapes.push_back(builder_.sequence({builder_.literal("u00"), builder_.byte(high), builder_.bytes(low)}));
  }
  parts.push_back(builder_.sequence(builder_.byte('\\'), builder_.alternatives(escapes)));
  return known->second = builder_.alternatives(parts);
}

NodeId JsonNodes::quoted(std::string_view text) {
  const std::string spelt = Json(text).dump();
  return builder_.literal(spelt);
}

// A trie over the characters of the names, whose nodes leave it for good with any other character.
NodeId JsonNodes::key_unlike(const std::vector<std::string>& names) {
  const GroupScope scope(builder_);
  const NodeId quote = builder_.byte('"');
  const NodeId rest = builder_.sequence(builder_.repeat(plain_char(CharSet::all()), 0, kUnlimited), quote);
  std::vector<std::vector<uint32_t>> sorted;
  for (const std::string& name : names) sorted.push_back(decode_chars(name));
  std::sort(sorted.begin(), sorted.end());
  // Every prefix once, longest first, so that what follows is there when it is needed.
  struct Prefix {
    bool is_name = false;
    std::map<uint32_t, NodeId> next = {};
  };
  std::map<std::vector<uint32_t>, Prefix> prefixes;
  size_t total = 0;
  for (const std::vector<uint32_t>& name : sorted) {
    total += name.size() * name.size();
    if (total > 50'000'000) fail(ErrorKind::invalid_input, "the names of the properties are too long to keep other names apart from them");
    for (size_t length = 0; length <= name.size(); ++length) prefixes[{name.begin(), name.begin() + static_cast<ptrdiff_t>(length)}];
    prefixes[name].is_name = true;
  }
  NodeId made = rest;
  for (auto it = prefixes.rbegin(); it != prefixes.rend(); ++it) {
    std::vector<NodeId> parts;
    CharSet taken;
    std::vector<CharRange> ranges;
    for (const auto& [c, node] : it->second.next) {
      parts.push_back(builder_.sequence(plain_char(CharSet({{c, c}})), node));
      ranges.push_back({c, c});
    }
    parts.push_back(builder_.sequence(plain_char(CharSet(std::move(ranges)).complement()), rest));
    if (!it->second.is_name) parts.push_back(quote);
    made = builder_.alternatives(std::move(parts));
    if (!it->first.empty()) prefixes[{it->first.begin(), it->first.end() - 1}].next[it->first.back()] = made;
  }
  return made;
}

NodeId JsonNodes::any_number(bool integer) {
  std::optional<NodeId>& known = integer ? integer_ : number_;
  if (!known) {
    const GroupScope scope(builder_);
    const NodeId digit = builder_.bytes(kDigits);
    const NodeId positive = builder_.sequence(builder_.bytes(kDigits & ~byte_set("0")), builder_.repeat(digit, 0, kMaxDigits - 1));
    const NodeId minus = builder_.optional(builder_.byte('-'));
    if (integer) {
      known = builder_.alternatives({builder_.byte('0'), builder_.sequence(minus, positive)});
    } else {
      const NodeId fraction = builder_.sequence(builder_.byte('.'), builder_.repeat(digit, 1, kMaxDigits));
      const NodeId exponent =
          builder_.sequence({builder_.bytes(byte_set("eE")), builder_.optional(builder_.bytes(byte_set("+-"))), builder_.repeat(digit, 1, 2)});
      known = builder_.sequence({minus, builder_.alternatives({builder_.byte('0'), positive}), builder_.optional(fraction), builder_.optional(exponent)});
    }
  }
  return *known;
}

NodeId JsonNodes::any_pair() { return builder_.sequence({any_string(), colon(), any_value()}); }

NodeId JsonNodes::any_number_of(NodeId item) {
  return builder_.optional(builder_.sequence({item, builder_.repeat(builder_.sequence(comma(), item), 0, kUnlimited), space()}));
}

NodeId JsonNodes::any_object() {
  if (!any_object_) {
    const GroupScope scope(builder_);
    any_object_ = builder_.reference();
    builder_.set_target(*any_object_, in_braces(any_number_of(any_pair())));
  }
  return *any_object_;
}

NodeId JsonNodes::any_array() {
  if (!any_array_) {
    const GroupScope scope(builder_);
    any_array_ = builder_.reference();
    builder_.set_target(*any_array_, in_brackets(any_number_of(any_value())));
  }
  return *any_array_;
}

NodeId JsonNodes::any_value() {
  if (!any_value_) {
    const GroupScope scope(builder_);
    any_value_ = builder_.reference();
    builder_.set_target(*any_value_, builder_.alternatives({any_object(), any_array(), any_string(), any_number(false), builder_.literal("true"),
                                                            builder_.literal("false"), builder_.literal("null")}));
  }
  return *any_value_;
}

NodeId JsonNodes::value(const Json& value) {
  std::vector<NodeId> parts;
  if (value.is_object()) {
    for (const auto& [key, member] : value.items()) {
      if (!parts.empty()) parts.push_back(comma());
      parts.push_back(quoted(key));
      parts.push_back(colon());
      parts.push_back(this->value(member));
    }
    if (!parts.empty()) parts.push_back(space());
    return in_braces(builder_.sequence(parts));
  }
  if (value.is_array()) {
    for (const Json& item : value) {
      if (!parts.empty()) parts.push_back(comma());
      parts.push_back(this->value(item));
    }
    if (!parts.empty()) parts.push_back(space());
    return in_brackets(builder_.sequence(parts));
  }
  return value.is_string() ? quoted(value.get_ref<const std::string&>()) : builder_.literal(value.dump());
}

}  // namespace frugal::text::grammar
