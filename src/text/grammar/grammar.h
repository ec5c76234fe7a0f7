// Structured output: what a request may generate, as an immutable byte-level grammar. docs/grammar.md lists what each source
// language covers. Everything fails closed: what cannot be enforced is an Error, never a looser grammar.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/json.h"

namespace frugal::text {

namespace grammar {
struct Program;
}

// Immutable and thread-safe. Errors of all sources: invalid_input (broken, too large, accepts nothing, left recursion),
// unsupported (a construct that cannot be enforced; named with its place). Each is built within a second.
// Members of an object whose schema declares others (`properties`) and says nothing of these: what JSON Schema allows, a small model goes on
// inventing.
enum class Undeclared { allowed, left_out };

class Grammar {
 public:
  static constexpr size_t kMaxBytes = 256 << 10;  // of a source text

  // llama.cpp's GBNF; the start is rule `root`.
  static std::shared_ptr<const Grammar> from_gbnf(std::string_view text);
  // The whole output matches a regular expression.
  static std::shared_ptr<const Grammar> from_regex(std::string_view pattern);
  // The output is one of these texts.
  static std::shared_ptr<const Grammar> from_choices(std::span<const std::string> choices);
  // JSON Schema 2020-12 and the common spellings of older drafts. Errors name the JSON pointer and the keyword.
  static std::shared_ptr<const Grammar> from_json_schema_text(std::string_view schema, Undeclared undeclared = Undeclared::allowed);
  static std::shared_ptr<const Grammar> from_json_schema(const Json& schema, Undeclared undeclared = Undeclared::allowed);
  // Any JSON object.
  static std::shared_ptr<const Grammar> json_object();

  explicit Grammar(grammar::Program program);
  ~Grammar();
  Grammar(const Grammar&) = delete;
  Grammar& operator=(const Grammar&) = delete;
  const grammar::Program& program() const { return *program_; }

 private:
  std::unique_ptr<const grammar::Program> program_;
};

}  // namespace frugal::text
