// Reads the characters of a grammar's source text, and says where an error is.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

#include "base/error.h"
#include "text/unicode.h"

namespace frugal::text::grammar {

class SourceReader {
 public:
  static constexpr uint32_t kEndOfText = 0xFFFFFFFF;

  // `what` leads every error message. Refuses what is too long, not UTF-8, or holds NUL.
  SourceReader(std::string_view text, std::string what, size_t max_bytes) : text_(text), what_(std::move(what)) {
    if (text.size() > max_bytes) frugal::fail(ErrorKind::invalid_input, "{}: {} bytes, {} at most", what_, text.size(), max_bytes);
    if (!is_valid_utf8(text)) frugal::fail(ErrorKind::invalid_input, "{}: not UTF-8", what_);
    if (text.find('\0') != std::string_view::npos) frugal::fail(ErrorKind::invalid_input, "{}: holds a NUL byte", what_);
  }

  bool at_end() const { return position_ >= text_.size(); }
  uint32_t peek() const { return at_end() ? kEndOfText : decode_char(text_, position_).code; }
  bool starts_with(std::string_view word) const { return text_.substr(position_).starts_with(word); }
  uint32_t next() {
    const DecodedChar c = decode_char(text_, position_);
    position_ += c.length;
    return c.code;
  }
  bool skip(std::string_view word) {
    if (!starts_with(word)) return false;
    position_ += word.size();
    return true;
  }
  size_t position() const { return position_; }
  void set_position(size_t position) { position_ = position; }
  std::string_view between(size_t begin, size_t end) const { return text_.substr(begin, end - begin); }

  template <typename... Args>
  [[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) const {
    frugal::fail(kind, "{}: {} at byte {} ({})", what_, fmt::format(format, std::forward<Args>(args)...), position_,
                 at_end() ? "the end" : "before " + printable(text_.substr(position_), 20));
  }

  // `digits` hexadecimal digits.
  uint32_t hex(int digits) {
    uint32_t value = 0;
    for (int i = 0; i < digits; ++i) value = value * 16 + hex_digit();
    return value;
  }
  uint32_t hex_digit() {
    const uint32_t c = peek();
    if (c >= '0' && c <= '9') return next() - '0';
    if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')) return (next() | 0x20) - 'a' + 10;
    fail(ErrorKind::invalid_input, "a hexadecimal digit is expected");
  }
  // A decimal number, at most `max`.
  uint32_t number(uint32_t max) {
    if (peek() < '0' || peek() > '9') fail(ErrorKind::invalid_input, "a number is expected");
    uint64_t value = 0;
    while (peek() >= '0' && peek() <= '9') {
      value = value * 10 + (peek() - '0');
      if (value > max) fail(ErrorKind::invalid_input, "a repetition of more than {}", max);
      next();
    }
    return static_cast<uint32_t>(value);
  }

 private:
  std::string_view text_;
  std::string what_;
  size_t position_ = 0;
};

}  // namespace frugal::text::grammar
