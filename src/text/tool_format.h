// How a model family writes calls of tools into its text, and how it marks the reasoning that comes before the answer.
//
// A family is a row of the table in tool_format.cpp; the grammar that enforces calls (grammar/tool_grammar.h) and the reader of
// what was generated (answer_parser.h) follow the row. A model whose template knows no tools gets the row "json", and is told of
// the tools in words by with_tools_told().
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/chat_template.h"

namespace frugal::text {

struct ToolFormat {
  std::string_view name;       // hermes, llama3_json, mistral, mistral_args, json
  std::string_view mark;       // in the source of a template of this family
  std::string_view open;       // before each call, or before all of them where they are a list; empty: a call is the whole answer
  std::string_view close;      // after each call
  std::string_view arguments;  // the key of the arguments
  bool list = false;           // one JSON list of all calls
  std::string_view separator;  // name, separator, arguments; empty: an object with "name" and `arguments`
  bool native = true;          // the family's templates write tools, calls and results themselves
};

// All families that are known.
std::span<const ToolFormat> tool_formats();
// By name; throws Error{invalid_input} that lists the names.
const ToolFormat& tool_format(std::string_view name);
// By what the template writes.
const ToolFormat& tool_format(const ChatTemplate& chat_template);

// A function that the model may call.
struct Tool {
  std::string name;         // [a-zA-Z0-9_.-]{1,64}
  std::string description;  // maybe empty
  Json parameters;          // a JSON schema of an object, or null: any object
  bool strict = false;      // the schema is enforced or refused; else enforced where it can be
};

// For a template without tools: the messages with the tools told in the system message, calls as the assistant's text, and results
// as the user's.
Json with_tools_told(const Json& messages, const std::vector<Tool>& tools);

// The marks of reasoning that a template knows; empty ones where it knows none.
struct ReasoningMarks {
  std::string_view open, close;
};
ReasoningMarks reasoning_marks(const ChatTemplate& chat_template);

}  // namespace frugal::text
