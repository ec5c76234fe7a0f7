// Jinja's lexer with trim_blocks and lstrip_blocks on, keep_trailing_newline off.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/template_value.h"

namespace frugal::text::jinja {

enum class TokenKind { data, variable_begin, variable_end, block_begin, block_end, name, string, integer, real, op, end };

struct Token {
  TokenKind kind = TokenKind::end;
  std::string text;  // data, name, decoded string or operator
  int line = 1;
  Integer integer = 0;
  double real = 0;

  bool is_op(std::string_view what) const { return kind == TokenKind::op && text == what; }
  bool is_name(std::string_view what) const { return kind == TokenKind::name && text == what; }
};

constexpr size_t kMaxTemplateBytes = size_t{1} << 20;

// Throws Error{invalid_input} with the line: unclosed tag, string, comment or raw, a character that is none of Jinja's.
std::vector<Token> tokenize_template(std::string_view source);

}  // namespace frugal::text::jinja
