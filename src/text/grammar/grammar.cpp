#include "text/grammar/grammar.h"

#include "base/error.h"
#include "text/grammar/gbnf.h"
#include "text/grammar/json_nodes.h"
#include "text/grammar/program.h"
#include "text/grammar/regex.h"
#include "text/grammar/schema_compiler.h"

namespace frugal::text {

Grammar::Grammar(grammar::Program program) : program_(std::make_unique<const grammar::Program>(std::move(program))) {}
Grammar::~Grammar() = default;

std::shared_ptr<const Grammar> Grammar::from_gbnf(std::string_view text) { return std::make_shared<const Grammar>(grammar::parse_gbnf(text)); }

std::shared_ptr<const Grammar> Grammar::from_regex(std::string_view pattern) {
  if (pattern.size() > kMaxBytes) fail(ErrorKind::invalid_input, "regex: {} bytes, {} at most", pattern.size(), kMaxBytes);
  const grammar::Regex regex = grammar::parse_regex(pattern, "regex");
  grammar::Builder builder;
  builder.new_group();
  const grammar::NodeId root = grammar::regex_nodes(regex, false, builder, [&](const grammar::CharSet& set) { return builder.character(set); });
  return std::make_shared<const Grammar>(builder.finish(root));
}

std::shared_ptr<const Grammar> Grammar::from_choices(std::span<const std::string> choices) {
  if (choices.empty()) fail(ErrorKind::invalid_input, "choice: an empty list");
  size_t bytes = 0;
  for (const std::string& choice : choices) {
    bytes += choice.size();
    if (bytes > kMaxBytes) fail(ErrorKind::invalid_input, "choice: more than {} bytes", kMaxBytes);
    if (choice.empty()) fail(ErrorKind::invalid_input, "choice: an empty text");
  }
  grammar::Builder builder;
  builder.new_group();
  return std::make_shared<const Grammar>(builder.finish(builder.choices({choices.begin(), choices.end()})));
}

std::shared_ptr<const Grammar> Grammar::from_json_schema_text(std::string_view schema, Undeclared undeclared) {
  try {
    return from_json_schema(parse_json(schema, "schema", {.max_bytes = kMaxBytes, .max_depth = 64}), undeclared);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::corrupt_file) throw;
    fail(ErrorKind::invalid_input, "{}", error.what());
  }
}

std::shared_ptr<const Grammar> Grammar::from_json_schema(const Json& schema, Undeclared undeclared) {
  return std::make_shared<const Grammar>(grammar::compile_schema(schema, undeclared));
}

std::shared_ptr<const Grammar> Grammar::json_object() {
  grammar::Builder builder;
  builder.new_group();
  grammar::JsonNodes json(builder);
  return std::make_shared<const Grammar>(builder.finish(json.any_object()));
}

}  // namespace frugal::text
