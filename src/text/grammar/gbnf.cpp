#include "text/grammar/gbnf.h"

#include <unordered_map>

#include "text/grammar/source_reader.h"

namespace frugal::text::grammar {

namespace {

constexpr int kMaxDepth = 100;
constexpr size_t kMaxBytes = 256 << 10;
constexpr size_t kMaxRules = 10'000;

bool is_name_char(uint32_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_'; }

class GbnfParser {
 public:
  explicit GbnfParser(std::string_view text) : reader_(text, "grammar", kMaxBytes) {}

  Program run() {
    for (skip_space(true); !reader_.at_end(); skip_space(true)) rule();
    for (const auto& [name, rule] : rules_) {
      if (!rule.defined) fail(ErrorKind::invalid_input, "grammar: rule {} is used but not defined", printable(name));
    }
    const auto root = rules_.find("root");
    if (root == rules_.end()) fail(ErrorKind::invalid_input, "grammar: no rule is called root");
    return builder_.finish(root->second.node);
  }

 private:
  struct Rule {
    NodeId node = 0;
    uint32_t group = 0;
    bool defined = false;
  };

  void skip_space(bool newlines) {
    for (;;) {
      const uint32_t c = reader_.peek();
      if (c == '#') {
        while (!reader_.at_end() && reader_.peek() != '\n' && reader_.peek() != '\r') reader_.next();
      } else if (c == ' ' || c == '\t' || (newlines && (c == '\n' || c == '\r'))) {
        reader_.next();
      } else {
        return;
      }
    }
  }

  std::string name() {
    const size_t begin = reader_.position();
    while (is_name_char(reader_.peek())) reader_.next();
    if (reader_.position() == begin) reader_.fail(ErrorKind::invalid_input, "the name of a rule is expected");
    return std::string(reader_.between(begin, reader_.position()));
  }

  Rule& find_rule(const std::string& name) {
    const auto [it, fresh] = rules_.try_emplace(name);
    if (fresh) {
      if (rules_.size() > kMaxRules) reader_.fail(ErrorKind::invalid_input, "more than {} rules", kMaxRules);
      const GroupScope scope(builder_);
      builder_.name_group(name);
      it->second.node = builder_.reference();
      it->second.group = builder_.group();
    }
    return it->second;
  }

  void rule() {
    const std::string own = name();
    skip_space(false);
    if (!reader_.skip("::=")) reader_.fail(ErrorKind::invalid_input, "::= is expected after the name {}", printable(own));
    skip_space(true);
    Rule& rule = find_rule(own);
    if (rule.defined) reader_.fail(ErrorKind::invalid_input, "rule {} is defined twice", printable(own));
    rule.defined = true;
    const NodeId node = rule.node;
    const GroupScope scope(builder_, rule.group);
    builder_.set_target(node, alternatives(0));
    if (!reader_.at_end() && reader_.peek() != '\n' && reader_.peek() != '\r') reader_.fail(ErrorKind::invalid_input, "the end of the rule is expected");
  }

  NodeId alternatives(int depth) {
    std::vector<NodeId> parts;
    for (;;) {
      parts.push_back(sequence(depth));
      const size_t end = reader_.position();
      skip_space(true);  // an alternative may stand on a new line
      if (reader_.skip("|")) {
        skip_space(true);
        continue;
      }
      if (depth == 0) reader_.set_position(end);
      return builder_.alternatives(std::move(parts));
    }
  }

  NodeId sequence(int depth) {
    std::vector<NodeId> parts;
    for (;;) {
      skip_space(depth > 0);
      const uint32_t c = reader_.peek();
      if (c == '"') {
        parts.push_back(repeated(literal(), depth));
      } else if (c == '[') {
        parts.push_back(repeated(builder_.character(bracket()), depth));
      } else if (c == '.') {
        reader_.next();
        parts.push_back(repeated(builder_.character(CharSet::all()), depth));
      } else if (c == '(') {
        parts.push_back(repeated(group(depth), depth));
      } else if (is_name_char(c)) {
        parts.push_back(repeated(find_rule(name()).node, depth));
      } else if (c == '<' || c == '!') {
        reader_.fail(ErrorKind::unsupported, "a token in place of text");
      } else if (c == '*' || c == '+' || c == '?' || c == '{') {
        reader_.fail(ErrorKind::invalid_input, "nothing to repeat");
      } else {
        return builder_.sequence(parts);
      }
    }
  }

  NodeId group(int depth) {
    if (depth >= kMaxDepth) reader_.fail(ErrorKind::invalid_input, "groups nested deeper than {}", kMaxDepth);
    reader_.skip("(");
    const NodeId inside = alternatives(depth + 1);
    if (!reader_.skip(")")) reader_.fail(ErrorKind::invalid_input, "a ) is expected");
    return inside;
  }

  // With the repetitions that follow it, outermost last.
  NodeId repeated(NodeId body, int depth) {
    for (;;) {
      skip_space(depth > 0);
      if (reader_.skip("*")) {
        body = builder_.repeat(body, 0, kUnlimited);
      } else if (reader_.skip("+")) {
        body = builder_.repeat(body, 1, kUnlimited);
      } else if (reader_.skip("?")) {
        body = builder_.optional(body);
      } else if (reader_.skip("{")) {
        skip_space(false);
        const uint32_t min = reader_.peek() == ',' ? 0 : reader_.number(Builder::kMaxRepeat);
        uint32_t max = min;
        skip_space(false);
        if (reader_.skip(",")) {
          skip_space(false);
          max = reader_.peek() == '}' ? kUnlimited : reader_.number(Builder::kMaxRepeat);
          skip_space(false);
        }
        if (!reader_.skip("}")) reader_.fail(ErrorKind::invalid_input, "a }} is expected");
        if (max < min) reader_.fail(ErrorKind::invalid_input, "a repetition of at least {} and at most {}", min, max);
        body = builder_.repeat(body, min, max);
      } else {
        return body;
      }
    }
  }

  NodeId literal() {
    reader_.skip("\"");
    std::string text;
    while (reader_.peek() != '"') {
      if (reader_.at_end() || reader_.peek() == '\n') reader_.fail(ErrorKind::invalid_input, "a text without its closing \"");
      append_utf8(text, character());
    }
    reader_.skip("\"");
    return builder_.literal(text);
  }

  CharSet bracket() {
    reader_.skip("[");
    const bool negated = reader_.skip("^");
    std::vector<CharRange> ranges;
    while (reader_.peek() != ']') {
      if (reader_.at_end() || reader_.peek() == '\n') reader_.fail(ErrorKind::invalid_input, "a [ without its ]");
      const uint32_t first = character();
      uint32_t last = first;
      if (reader_.peek() == '-' && !reader_.starts_with("-]")) {
        reader_.skip("-");
        if (reader_.at_end()) reader_.fail(ErrorKind::invalid_input, "a [ without its ]");
        last = character();
        if (last < first) reader_.fail(ErrorKind::invalid_input, "a range that ends before it begins");
      }
      ranges.push_back({first, last});
    }
    reader_.skip("]");
    const CharSet set(std::move(ranges));
    return negated ? set.complement() : set;
  }

  uint32_t character() {
    if (!reader_.skip("\\")) return reader_.next();
    const size_t begin = reader_.position();
    if (reader_.at_end()) reader_.fail(ErrorKind::invalid_input, "a backslash at the end");
    uint32_t code = 0;
    switch (reader_.next()) {
      case 'x': code = reader_.hex(2); break;
      case 'u': code = reader_.hex(4); break;
      case 'U': code = reader_.hex(8); break;
      case 't': return '\t';
      case 'r': return '\r';
      case 'n': return '\n';
      case '\\': return '\\';
      case '"': return '"';
      case '[': return '[';
      case ']': return ']';
      case '-': return '-';
      case '^': return '^';
      default: reader_.set_position(begin); reader_.fail(ErrorKind::invalid_input, "an unknown escape");
    }
    if (code > kLastChar || (code >= 0xD800 && code <= 0xDFFF)) {
      reader_.set_position(begin);
      reader_.fail(ErrorKind::invalid_input, "U+{:04X} is no character", code);
    }
    return code;
  }

  SourceReader reader_;
  Builder builder_;
  std::unordered_map<std::string, Rule> rules_;
};

}  // namespace

Program parse_gbnf(std::string_view text) { return GbnfParser(text).run(); }

}  // namespace frugal::text::grammar
