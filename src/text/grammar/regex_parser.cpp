#include "text/grammar/regex.h"
#include "text/grammar/source_reader.h"

namespace frugal::text::grammar {

namespace {

constexpr int kMaxDepth = 100;
constexpr size_t kMaxBytes = 256 << 10;

class RegexParser {
 public:
  RegexParser(std::string_view pattern, const std::string& what) : reader_(pattern, what, kMaxBytes) {}

  Regex run() {
    do {
      Regex::Branch branch;
      while (reader_.skip("^")) branch.at_start = true;
      branch.root = sequence(0);
      while (reader_.skip("$")) branch.at_end = true;
      regex_.branches.push_back(branch);
    } while (reader_.skip("|"));
    if (!reader_.at_end()) {
      if (reader_.peek() == ')') reader_.fail(ErrorKind::invalid_input, "a ) without its (");
      reader_.fail(ErrorKind::unsupported, "an anchor that is not at the start or the end of the expression");
    }
    return std::move(regex_);
  }

 private:
  uint32_t add(Regex::Node node) {
    regex_.nodes.push_back(std::move(node));
    return static_cast<uint32_t>(regex_.nodes.size() - 1);
  }
  uint32_t chars(CharSet set) { return add({.kind = Regex::Kind::chars, .set = std::move(set)}); }

  uint32_t alternatives(int depth) {
    std::vector<uint32_t> parts;
    do {
      parts.push_back(sequence(depth));
    } while (reader_.skip("|"));
    return parts.size() == 1 ? parts[0] : add({.kind = Regex::Kind::alternatives, .children = std::move(parts)});
  }

  uint32_t sequence(int depth) {
    std::vector<uint32_t> parts;
    for (;;) {
      const uint32_t c = reader_.peek();
      if (c == SourceReader::kEndOfText || c == '|' || c == ')' || c == '$' || c == '^') break;
      parts.push_back(quantified(atom(depth)));
    }
    if (depth > 0 && (reader_.peek() == '$' || reader_.peek() == '^')) {
      reader_.fail(ErrorKind::unsupported, "an anchor inside a group");
    }
    return parts.size() == 1 ? parts[0] : add({.kind = parts.empty() ? Regex::Kind::empty : Regex::Kind::sequence, .children = std::move(parts)});
  }

  uint32_t atom(int depth) {
    switch (reader_.peek()) {
      case '(': return group(depth);
      case '[': return chars(bracket());
      case '.': reader_.next(); return chars(CharSet::dot());
      case '\\': return chars(escape(false));
      case '*':
      case '+':
      case '?': reader_.fail(ErrorKind::invalid_input, "nothing to repeat");
      case '{':
        if (is_counted()) reader_.fail(ErrorKind::invalid_input, "nothing to repeat");
        break;
      default: break;
    }
    const uint32_t c = reader_.next();
    return chars(CharSet({{c, c}}));
  }

  uint32_t group(int depth) {
    if (depth >= kMaxDepth) reader_.fail(ErrorKind::invalid_input, "groups nested deeper than {}", kMaxDepth);
    const size_t begin = reader_.position();
    reader_.skip("(");
    if (reader_.skip("?")) {
      if (reader_.skip("=") || reader_.skip("!")) refuse(begin, "lookahead");
      if (reader_.skip("<=") || reader_.skip("<!")) refuse(begin, "lookbehind");
      if (reader_.skip("P=")) refuse(begin, "a backreference");
      if (reader_.skip(">")) refuse(begin, "an atomic group");
      if (reader_.skip("P<") || reader_.skip("<")) {
        while (reader_.peek() != '>') {
          if (reader_.at_end()) reader_.fail(ErrorKind::invalid_input, "a group name without its end");
          reader_.next();
        }
        reader_.next();
      } else if (!reader_.skip(":")) {
        refuse(begin, "flags, conditions and comments in a group");
      }
    } else if (reader_.peek() == '*') {
      refuse(begin, "a verb");
    }
    const uint32_t inside = alternatives(depth + 1);
    if (!reader_.skip(")")) reader_.fail(ErrorKind::invalid_input, "a ( without its )");
    return inside;
  }

  [[noreturn]] void refuse(size_t at, std::string_view what) {
    reader_.set_position(at);
    reader_.fail(ErrorKind::unsupported, "{} cannot be enforced", what);
  }

  // {m}, {m,} or {m,n} stands here; any other brace is an ordinary character.
  bool is_counted() {
    const size_t begin = reader_.position();
    bool counted = false;
    if (reader_.skip("{")) {
      const auto skip_digits = [&] {
        bool any = false;
        for (; reader_.peek() >= '0' && reader_.peek() <= '9'; any = true) reader_.next();
        return any;
      };
      const bool min = skip_digits(), comma = reader_.skip(","), max = skip_digits();
      counted = reader_.peek() == '}' && (min || (comma && max));
    }
    reader_.set_position(begin);
    return counted;
  }

  uint32_t quantified(uint32_t body) {
    for (int turns = 0;; ++turns) {
      uint32_t min = 0, max = kUnlimited;
      if (reader_.skip("*")) {
      } else if (reader_.skip("+")) {
        min = 1;
      } else if (reader_.skip("?")) {
        max = 1;
      } else if (is_counted()) {
        reader_.skip("{");
        if (reader_.peek() == ',') reader_.fail(ErrorKind::unsupported, "{{,n}} means n times at most to some and is plain text to others; write {{0,n}}");
        max = min = reader_.number(Builder::kMaxRepeat);
        if (reader_.skip(",")) max = reader_.peek() == '}' ? kUnlimited : reader_.number(Builder::kMaxRepeat);
        if (max < min) reader_.fail(ErrorKind::invalid_input, "a repetition of at least {} and at most {}", min, max);
        reader_.skip("}");
      } else {
        return body;
      }
      if (turns > 0) reader_.fail(ErrorKind::invalid_input, "two repetitions of one thing");
      if (reader_.peek() == '+') reader_.fail(ErrorKind::unsupported, "a possessive repetition cannot be enforced");
      reader_.skip("?");  // lazy: the same texts
      body = add({.kind = Regex::Kind::repeat, .children = {body}, .min = min, .max = max});
    }
  }

  CharSet bracket() {
    reader_.skip("[");
    const bool negated = reader_.skip("^");
    CharSet set;
    std::vector<CharRange> ranges;
    for (bool first = true; first || reader_.peek() != ']'; first = false) {
      if (reader_.at_end()) reader_.fail(ErrorKind::invalid_input, "a [ without its ]");
      if (first && reader_.peek() == ']') reader_.fail(ErrorKind::unsupported, "[] and []...] mean different things to different engines; write \\]");
      const size_t begin = reader_.position();
      const CharSet low = bracket_item();
      const bool single = low.ranges().size() == 1 && low.ranges()[0].first == low.ranges()[0].last;
      if (reader_.peek() == '-' && !reader_.starts_with("-]")) {
        reader_.skip("-");
        if (reader_.at_end()) reader_.fail(ErrorKind::invalid_input, "a [ without its ]");
        const CharSet high = bracket_item();
        if (!single || high.ranges().size() != 1 || high.ranges()[0].first != high.ranges()[0].last || high.ranges()[0].first < low.ranges()[0].first) {
          reader_.set_position(begin);
          reader_.fail(ErrorKind::invalid_input, "a range that does not go from one character to a later one");
        }
        ranges.push_back({low.ranges()[0].first, high.ranges()[0].first});
      } else {
        ranges.insert(ranges.end(), low.ranges().begin(), low.ranges().end());
      }
    }
    reader_.skip("]");
    set = CharSet(std::move(ranges));
    return negated ? set.complement() : set;
  }

  CharSet bracket_item() {
    if (reader_.peek() == '\\') return escape(true);
    if (reader_.starts_with("[:")) reader_.fail(ErrorKind::unsupported, "a POSIX class");
    const uint32_t c = reader_.next();
    return CharSet({{c, c}});
  }

  CharSet escape(bool in_bracket) {
    const size_t begin = reader_.position();
    reader_.skip("\\");
    if (reader_.at_end()) reader_.fail(ErrorKind::invalid_input, "a backslash at the end");
    const uint32_t c = reader_.next();
    const auto one = [](uint32_t code) { return CharSet({{code, code}}); };
    switch (c) {
      case 'd': return CharSet::digits();
      case 'D': return CharSet::digits().complement();
      case 'w': return CharSet::word();
      case 'W': return CharSet::word().complement();
      case 's': return CharSet::space();
      case 'S': return CharSet::space().complement();
      case 'n': return one('\n');
      case 't': return one('\t');
      case 'r': return one('\r');
      case 'f': return one('\f');
      case 'v': return one('\v');
      case 'a': refuse(begin, "\\a");
      case 'x': return one(reader_.hex(2));
      case 'u': return one(unicode_escape());
      case 'c': {
        const uint32_t letter = reader_.at_end() ? 0 : reader_.next();
        if ((letter | 0x20) < 'a' || (letter | 0x20) > 'z') reader_.fail(ErrorKind::invalid_input, "a control escape without its letter");
        return one(letter & 0x1F);
      }
      case 'b':
        if (in_bracket) return one('\b');
        refuse(begin, "a word boundary (\\b)");
      case 'B': refuse(begin, "\\B");
      case 'p':
      case 'P': refuse(begin, "a Unicode property (\\p)");
      case 'k': refuse(begin, "a backreference (\\k)");
      case 'A':
      case 'z':
      case 'Z': refuse(begin, "the anchors \\A, \\z and \\Z; ^ and $");
      case '0':
        if (reader_.peek() >= '0' && reader_.peek() <= '9') refuse(begin, "an octal escape");
        return one(0);
      default: break;
    }
    if (c >= '1' && c <= '9') refuse(begin, in_bracket ? "an octal escape" : "a backreference");
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
      reader_.set_position(begin);
      reader_.fail(ErrorKind::invalid_input, "an unknown escape");
    }
    return one(c);
  }

  uint32_t unicode_escape() {
    if (reader_.skip("{")) {
      uint32_t value = 0;
      do {
        value = value * 16 + reader_.hex_digit();
        if (value > kLastChar) reader_.fail(ErrorKind::invalid_input, "a character above U+10FFFF");
      } while (reader_.peek() != '}');
      reader_.skip("}");
      return value;
    }
    const uint32_t high = reader_.hex(4);
    if (high < 0xD800 || high > 0xDBFF || !reader_.skip("\\u")) return high;
    const uint32_t low = reader_.hex(4);
    if (low < 0xDC00 || low > 0xDFFF) reader_.fail(ErrorKind::invalid_input, "half of a surrogate pair");
    return 0x10000 + ((high - 0xD800) << 10 | (low - 0xDC00));
  }

  SourceReader reader_;
  Regex regex_;
};

}  // namespace

Regex parse_regex(std::string_view pattern, const std::string& what) { return RegexParser(pattern, what).run(); }

}  // namespace frugal::text::grammar
