// From Oniguruma's Ruby syntax to PCRE2, refusing whatever is not understood. Differences that matter here:
//  - \s: PCRE2 counts U+180E as a space, Unicode (and Oniguruma) does not; \w (and so \b): Oniguruma includes marks.
//  - \h, \R, \X, \K, \G and \Q mean other things or nothing; [..&&..] and [[..]] are set operations only in Oniguruma.
// Time: PCRE2 backtracks, so a repeat without bound whose body can match the same text in several ways is exponential.
// Such a body holds another unbounded repeat or an alternation; both are refused unless the pattern is one of ours.
#include <vector>

#include "base/error.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace frugal::text {
namespace {

constexpr size_t kMaxPatternBytes = 16 << 10;
constexpr size_t kMaxGroupDepth = 32;
constexpr std::string_view kSpaces = "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";
// Oniguruma's: Alphabetic, Mark, Decimal_Number, Connector_Punctuation and the numerals of Latin-1 (measured over all
// assigned code points with `tokenizers` 0.23). The ranges at the end are the alphabetic symbols.
constexpr std::string_view kWords =
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
    "\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}";

class Translator {
 public:
  Translator(std::string_view regex, std::string_view name, bool trusted) : in_(regex), name_(name), trusted_(trusted) {}

  std::string run() {
    if (in_.size() > kMaxPatternBytes) refuse("it is longer than 16 KiB");
    if (!is_valid_utf8(in_)) refuse("it is not valid UTF-8");
    groups_.push_back({});
    while (at_ < in_.size()) step();
    if (groups_.size() != 1) broken("a group is not closed");
    return std::move(out_);
  }

 private:
  // What the checker knows of an open group, or of the last closed item.
  struct Group {
    bool unbounded = false;    // holds a repeat without an upper bound
    bool alternation = false;  // holds a | (at any depth)
    bool look = false;         // (?= or (?!
  };

  [[noreturn]] void refuse(std::string_view why) const { fail(ErrorKind::unsupported, "{}: the pattern \"{}\" is refused: {}", name_, printable(in_), why); }
  [[noreturn]] void broken(std::string_view why) const { fail(ErrorKind::corrupt_file, "{}: the pattern \"{}\" is broken: {}", name_, printable(in_), why); }
  bool next_is(std::string_view text) const { return in_.substr(at_).starts_with(text); }

  void step() {
    const char c = in_[at_];
    switch (c) {
      case '(': open_group(); return;
      case ')': close_group(); return;
      case '[':
        read_class();
        last_ = {};
        return;
      case '\\':
        escape(false);
        last_ = {};
        return;
      case '|':
        groups_.back().alternation = true;
        out_ += c;
        ++at_;
        return;
      case '*':
      case '+':
      case '?':
      case '{': repeat(); return;
      default:
        out_ += c;
        ++at_;
        last_ = {};
    }
  }

  void open_group() {
    if (groups_.size() > kMaxGroupDepth) refuse("groups are nested deeper than 32");
    Group group;
    static constexpr std::string_view kPlain[] = {"(?:", "(?i:", "(?=", "(?!", "(?>"};
    if (next_is("(?")) {
      std::string_view prefix;
      for (const std::string_view plain : kPlain) {
        if (next_is(plain)) prefix = plain;
      }
      if (prefix.empty()) refuse("only the groups ( (?: (?i: (?= (?! (?> are supported, no look-behind, recursion or reference");
      group.look = prefix == "(?=" || prefix == "(?!";
      out_ += prefix;
      at_ += prefix.size();
    } else if (next_is("(*")) {
      refuse("it holds a PCRE verb");
    } else {
      out_ += "(?:";  // captures are not used, and they would cost time
      ++at_;
    }
    groups_.push_back(group);
  }

  void close_group() {
    if (groups_.size() == 1) broken("a ) without (");
    last_ = groups_.back();
    groups_.pop_back();
    groups_.back().unbounded |= last_.unbounded;
    groups_.back().alternation |= last_.alternation && groups_.size() > 1;
    out_ += ')';
    ++at_;
  }

  void repeat() {
    bool unbounded = false;
    if (in_[at_] == '{') {
      const size_t end = in_.find('}', at_);
      const std::string_view body = end == std::string_view::npos ? std::string_view{} : in_.substr(at_ + 1, end - at_ - 1);
      if (body.empty() || body.size() > 9 || body.find_first_not_of("0123456789,") != std::string_view::npos || body[0] == ',') {
        refuse("{ is only supported in the repeats {n}, {n,} and {n,m}");
      }
      unbounded = body.back() == ',';
      out_ += in_.substr(at_, end - at_ + 1);
      at_ = end + 1;
      if (at_ < in_.size() && in_[at_] == '+') refuse("{n,m}+ means different things in different engines");
    } else {
      unbounded = in_[at_] != '?';
      out_ += in_[at_++];
      if (at_ < in_.size() && in_[at_] == '+') out_ += in_[at_++];  // possessive
    }
    if (at_ < in_.size() && in_[at_] == '?') out_ += in_[at_++];  // lazy
    if (unbounded && !trusted_ && (last_.unbounded || last_.alternation)) {
      refuse("a repeat without bound holds another one or an alternation, which can take exponential time");
    }
    groups_.back().unbounded |= unbounded;
    last_.unbounded |= unbounded;
  }

  void read_class() {
    out_ += in_[at_++];
    if (at_ < in_.size() && in_[at_] == '^') out_ += in_[at_++];
    for (bool first = true;; first = false) {
      if (at_ >= in_.size()) broken("a [ is not closed");
      const char c = in_[at_];
      if (c == ']' && !first) break;
      if (c == '[') {
        // A set in a set, unless it is a lone bracket; ours write "\[".
        refuse("a [ inside [...] is a set operation in some engines; write \\[");
      } else if (next_is("&&")) {
        refuse("&& inside [...] is a set operation in some engines only");
      } else if (c == '\\') {
        escape(true);
      } else {
        out_ += c;
        ++at_;
      }
    }
    out_ += in_[at_++];
  }

  void escape(bool in_class) {
    if (at_ + 1 >= in_.size()) broken("it ends with a backslash");
    const char c = in_[at_ + 1];
    const auto put = [&](std::string_view outside, std::string_view inside) {
      out_ += in_class ? inside : outside;
      at_ += 2;
    };
    if (c == 's') return put(fmt::format("[{}]", kSpaces), kSpaces);
    if (c == 'w') return put(fmt::format("[{}]", kWords), kWords);
    if (c == 'd') return put("\\p{Nd}", "\\p{Nd}");
    if (c == 'D') return put("\\P{Nd}", "\\P{Nd}");
    if (c == 'S' || c == 'W') {
      if (in_class) refuse("\\S and \\W inside [...] are not supported");
      return put(fmt::format("[^{}]", c == 'S' ? kSpaces : kWords), "");
    }
    if (c == 'b' && !in_class) return put(fmt::format("(?:(?<=[{0}])(?![{0}])|(?<![{0}])(?=[{0}]))", kWords), "");
    if (c == 'v') return put("\\x{b}", "\\x{b}");
    if (c == 'u') return hexadecimal(4);
    if (c == 'x') return hexadecimal(0);
    if (c == 'p' || c == 'P') return property();
    const bool letter_or_digit = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    const bool known = c == 'r' || c == 'n' || c == 't' || c == 'f' || (!in_class && (c == 'A' || c == 'z'));
    if (letter_or_digit && !known) refuse("an escape is not supported (back references and engine-specific ones are not)");
    put(in_.substr(at_, 2), in_.substr(at_, 2));
  }

  void hexadecimal(size_t digits) {  // \uHHHH, \x{H...}, \xHH
    size_t begin = at_ + 2, end = begin + digits;
    size_t after = end;
    if (digits == 0 && begin < in_.size() && in_[begin] == '{') {
      end = in_.find('}', ++begin);
      if (end == std::string_view::npos) broken("\\x{ is not closed");
      after = end + 1;
    } else if (digits == 0) {
      after = end = begin + 2;
    }
    if (end > in_.size() || end == begin || end - begin > 6 ||
        in_.substr(begin, end - begin).find_first_not_of("0123456789abcdefABCDEF") != std::string_view::npos) {
      broken("\\x or \\u without hexadecimal digits");
    }
    out_ += fmt::format("\\x{{{}}}", in_.substr(begin, end - begin));
    at_ = after;
  }

  void property() {  // \p{L}, \p{^L}, \pL
    const size_t begin = at_;
    if (at_ + 2 < in_.size() && in_[at_ + 2] == '{') {
      const size_t end = in_.find('}', at_);
      if (end == std::string_view::npos || end - at_ > 32) broken("\\p{ is not closed");
      at_ = end + 1;
    } else {
      at_ += 3;
    }
    if (at_ > in_.size()) broken("\\p without a property");
    out_ += in_.substr(begin, at_ - begin);
  }

  std::string_view in_, name_;
  bool trusted_;
  size_t at_ = 0;
  std::string out_;
  std::vector<Group> groups_;
  Group last_;
};

}  // namespace

std::string translate_pattern(std::string_view regex, std::string_view name, bool trusted) { return Translator(regex, name, trusted).run(); }

}  // namespace frugal::text
