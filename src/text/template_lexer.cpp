#include "text/template_lexer.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "text/template_text.h"

namespace frugal::text::jinja {
namespace {

bool is_ascii_digit(char c) { return c >= '0' && c <= '9'; }
int digit_value(char c) {
  if (is_ascii_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return 99;
}

// \r\n and \r become \n, and one newline at the end goes.
std::string normalized_newlines(std::string_view source) {
  std::string out;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

// The body of a string literal, decoded as Python decodes it: escapes after every other character than ASCII was written
// as an escape itself.
class StringDecoder {
 public:
  StringDecoder(std::string_view raw, int line) : line_(line) {
    for (size_t i = 0; i < raw.size();) {
      if (static_cast<unsigned char>(raw[i]) < 0x80) {
        in_ += raw[i++];
        continue;
      }
      const auto c = static_cast<uint32_t>(code_point_at(raw, i));
      in_ += c < 0x100 ? fmt::format("\\x{:02x}", c) : c < 0x10000 ? fmt::format("\\u{:04x}", c) : fmt::format("\\U{:08x}", c);
      i = next_code_point(raw, i);
    }
  }

  std::string decode() {
    while (at_ < in_.size()) {
      const char c = in_[at_++];
      if (c != '\\')
        out_ += c;
      else
        escape();
    }
    return std::move(out_);
  }

 private:
  void escape() {
    if (at_ >= in_.size()) template_error("line {}: \\ at the end of a string", line_);
    const char c = in_[at_++];
    static constexpr std::string_view kFrom = "\\'\"abfnrtv", kTo = "\\'\"\a\b\f\n\r\t\v";
    if (const size_t i = kFrom.find(c); i != std::string_view::npos)
      out_ += kTo[i];
    else if (c == '\n')
      return;
    else if (c == 'x')
      number(2, 16);
    else if (c == 'u')
      number(4, 16);
    else if (c == 'U')
      number(8, 16);
    else if (c >= '0' && c <= '7')
      --at_, octal();
    else if (c == 'N')
      template_error("line {}: \\N{{...}} in a string is not supported", line_);
    else
      (out_ += '\\') += c;
  }
  void octal() {
    uint32_t value = 0;
    for (int i = 0; i < 3 && at_ < in_.size() && in_[at_] >= '0' && in_[at_] <= '7'; ++i) value = value * 8 + static_cast<uint32_t>(in_[at_++] - '0');
    append_utf8(out_, value);
  }
  void number(int digits, int base) {
    uint32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      const int digit = at_ < in_.size() ? digit_value(in_[at_]) : 99;
      if (digit >= base) template_error("line {}: truncated escape in a string", line_);
      value = value * 16 + static_cast<uint32_t>(digit);
      ++at_;
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) template_error("line {}: escape {:#x} is no character", line_, value);
    append_utf8(out_, value);
  }

  std::string in_, out_;
  size_t at_ = 0;
  int line_;
};

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized_newlines(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) text_until_tag();
    add(TokenKind::end, "");
    return std::move(tokens_);
  }

 private:
  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  void advance(size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_), source_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    line_start_ = to > at_ ? source_[to - 1] == '\n' : line_start_;
    at_ = to;
  }
  bool at(std::string_view what, size_t offset) const { return source_.compare(offset, what.size(), what) == 0; }
  size_t skip_spaces(size_t offset) const {
    while (offset < source_.size() && is_space(code_point_at(source_, offset))) offset = next_code_point(source_, offset);
    return offset;
  }
  [[noreturn]] void error(std::string_view what) const { template_error("line {}: {}", line_, what); }

  // Data before a tag whose sign ('-', '+' or other) follows its two characters.
  void add_data(size_t end, char sign, bool can_lstrip) {
    std::string_view data = std::string_view(source_).substr(at_, end - at_);
    if (sign == '-') {
      size_t keep = data.size();
      while (keep > 0 && is_space(code_point_at(data, previous_code_point(data, keep)))) keep = previous_code_point(data, keep);
      data = data.substr(0, keep);
    } else if (sign != '+' && can_lstrip) {
      const size_t line = data.rfind('\n') + 1;  // 0 when there is none
      if (line > 0 || line_start_) {
        size_t offset = line;
        while (offset < data.size() && is_space(code_point_at(data, offset))) offset = next_code_point(data, offset);
        if (offset >= data.size()) data = data.substr(0, line);
      }
    }
    if (!data.empty()) add(TokenKind::data, std::string(data));
  }

  void text_until_tag() {
    size_t open = at_;
    for (;; ++open) {
      open = source_.find('{', open);
      if (open == std::string::npos || open + 1 >= source_.size()) {
        add(TokenKind::data, source_.substr(at_));
        at_ = source_.size();
        return;
      }
      if (source_[open + 1] == '%' || source_[open + 1] == '{' || source_[open + 1] == '#') break;
    }
    const char type = source_[open + 1];
    size_t inside = open + 2;
    const char sign = inside < source_.size() && (source_[inside] == '-' || source_[inside] == '+') ? source_[inside] : ' ';
    if (sign != ' ') ++inside;
    size_t raw_body = 0;
    const bool raw = type == '%' && is_raw(inside, raw_body);
    add_data(open, sign, type != '{');
    if (raw) {
      advance(raw_body);
      raw_text();
    } else if (type == '#') {
      advance(inside);
      comment();
    } else {
      advance(inside);
      add(type == '%' ? TokenKind::block_begin : TokenKind::variable_begin, "");
      code(type == '%');
    }
  }

  bool is_raw(size_t offset, size_t& body) const {
    offset = skip_spaces(offset);
    if (!at("raw", offset)) return false;
    offset = skip_spaces(offset + 3);
    const bool strips = at("-%}", offset);
    if (!strips && !at("%}", offset)) return false;
    body = strips ? skip_spaces(offset + 3) : offset + 2;
    return true;
  }

  void comment() {
    size_t close = source_.find("#}", at_);
    if (close == std::string::npos) error("missing end of comment tag");
    const char sign = close > at_ ? source_[close - 1] : ' ';
    advance(after_tag(close + 2, sign));
  }
  // Where text goes on after a closing tag: trim_blocks takes one newline, '-' all white space, '+' nothing.
  size_t after_tag(size_t offset, char sign) const {
    if (sign == '-') return skip_spaces(offset);
    return sign != '+' && offset < source_.size() && source_[offset] == '\n' ? offset + 1 : offset;
  }

  void raw_text() {
    for (size_t open = source_.find("{%", at_); open != std::string::npos; open = source_.find("{%", open + 1)) {
      size_t offset = open + 2;
      const char sign = offset < source_.size() && (source_[offset] == '-' || source_[offset] == '+') ? source_[offset] : ' ';
      offset = skip_spaces(sign == ' ' ? offset : offset + 1);
      if (!at("endraw", offset)) continue;
      offset = skip_spaces(offset + 6);
      const char close = offset < source_.size() && (source_[offset] == '-' || source_[offset] == '+') ? source_[offset] : ' ';
      if (close != ' ') ++offset;
      if (!at("%}", offset)) continue;
      add_data(open, sign, true);
      advance(after_tag(offset + 2, close));
      return;
    }
    error("missing end of raw directive");
  }

  // Expression code up to the end of its tag. Inside brackets an end tag is an operator ("}}" closes two dictionaries).
  void code(bool block) {
    std::string brackets;
    const std::string_view close = block ? "%}" : "}}";
    for (;;) {
      advance(skip_spaces(at_));
      if (at_ >= source_.size()) error("unexpected end of template inside a tag");
      if (brackets.empty()) {
        const char c = source_[at_];
        const bool sign = (c == '-' || (c == '+' && block)) && at(close, at_ + 1);
        if (sign || at(close, at_)) {
          add(block ? TokenKind::block_end : TokenKind::variable_end, "");
          const size_t after = at_ + (sign ? 3 : 2);
          advance(block || sign ? after_tag(after, sign ? c : ' ') : after);
          return;
        }
      }
      token(brackets);
    }
  }

  void token(std::string& brackets) {
    const char c = source_[at_];
    if (is_ascii_digit(c)) return number();
    if (c == '\'' || c == '"') return string(c);
    if (is_word(code_point_at(source_, at_))) return name();
    static constexpr std::array<std::string_view, 26> kOperators = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                                                    "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (const std::string_view op : kOperators) {
      if (!at(op, at_)) continue;
      if (op == "(" || op == "[" || op == "{") brackets += op == "(" ? ')' : op == "[" ? ']' : '}';
      if (op == ")" || op == "]" || op == "}") {
        if (brackets.empty() || brackets.back() != op[0]) error(fmt::format("unexpected '{}'", op));
        brackets.pop_back();
      }
      add(TokenKind::op, std::string(op));
      return advance(at_ + op.size());
    }
    error(fmt::format("unexpected character '{}'", printable(source_.substr(at_, next_code_point(source_, at_) - at_))));
  }

  void name() {
    size_t end = at_;
    while (end < source_.size() && is_word(code_point_at(source_, end))) end = next_code_point(source_, end);
    add(TokenKind::name, source_.substr(at_, end - at_));
    advance(end);
  }

  void string(char quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) error("unexpected character: a string is not closed");
    add(TokenKind::string, StringDecoder(std::string_view(source_).substr(at_ + 1, end - at_ - 1), line_).decode());
    advance(end + 1);
  }

  // End of digits with single underscores between them.
  size_t digits_end(size_t offset, int base) const {
    size_t end = offset;
    while (end < source_.size()) {
      const bool underscore = source_[end] == '_' && end > offset && source_[end - 1] != '_';
      if (!underscore && digit_value(source_[end]) >= base) break;
      ++end;
    }
    while (end > offset && source_[end - 1] == '_') --end;
    return end;
  }

  void number() {
    int base = 10;
    size_t begin = at_;
    if (source_[at_] == '0' && at_ + 2 < source_.size()) {
      const char x = static_cast<char>(source_[at_ + 1] | 0x20);
      base = x == 'x' ? 16 : x == 'o' ? 8 : x == 'b' ? 2 : 10;
      size_t first = at_ + 2;
      if (base != 10 && source_[first] == '_' && first + 1 < source_.size()) ++first;
      if (base != 10 && digit_value(source_[first]) >= base) base = 10;
      if (base != 10) begin = first;
    }
    size_t end = digits_end(begin, base);
    if (base == 10) {
      const size_t real_end = end_of_real(end);
      if (real_end > end) return real(real_end);
      if (source_[begin] == '0') {  // Jinja's integer is 0, or does not start with 0
        while (end > begin + 1 && source_.find_first_not_of("0_", begin) < end) --end;
      }
    }
    Integer value = 0;
    for (size_t i = begin; i < end; ++i) {
      if (source_[i] == '_') continue;
      if (__builtin_mul_overflow(value, Integer{base}, &value) || __builtin_add_overflow(value, Integer{digit_value(source_[i])}, &value)) {
        error("an integer is over 127 bits");
      }
    }
    tokens_.push_back({TokenKind::integer, source_.substr(at_, end - at_), line_, value, 0});
    advance(end);
  }

  size_t end_of_real(size_t integer_end) const {
    size_t end = integer_end;
    if (tokens_.back().is_op(".")) return end;  // x.1.2: two subscripts
    if (end + 1 < source_.size() && source_[end] == '.' && is_ascii_digit(source_[end + 1])) end = digits_end(end + 1, 10);
    if (end < source_.size() && (source_[end] | 0x20) == 'e') {
      size_t exponent = end + 1;
      if (exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-')) ++exponent;
      if (exponent < source_.size() && is_ascii_digit(source_[exponent])) end = digits_end(exponent, 10);
    }
    return end;
  }

  void real(size_t end) {
    std::string digits = source_.substr(at_, end - at_);
    std::erase(digits, '_');
    double value = 0;
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (result.ec == std::errc::result_out_of_range) error("a number is out of range");
    tokens_.push_back({TokenKind::real, digits, line_, 0, value});
    advance(end);
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_start_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize_template(std::string_view source) {
  if (source.size() > kMaxTemplateBytes) template_error("a template of {} bytes is over the limit of {}", source.size(), kMaxTemplateBytes);
  if (!valid_utf8(source)) template_error("the template is not UTF-8");
  return Lexer(source).run();
}

}  // namespace frugal::text::jinja
