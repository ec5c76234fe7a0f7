// One row of a data set, in any of the shapes that people have, as what it says: a text, a conversation, or two of them to choose
// between. The names of fields are those of the shape and can be mapped, as Axolotl does.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"

namespace frugal::data {

enum class RowKind {
  automatic,   // told by the fields of the first row; a later row of another kind is an error
  text,        // {"text"}
  chat,        // {"messages": [{role, content, tool_calls?, ...}], "tools"?}
  alpaca,      // {"instruction", "input"?, "output", "system"?, "history"?: [[question, answer]]}
  sharegpt,    // {"conversations": [{from, value}], "system"?, "tools"?}; from: human, gpt, system, tool, observation, function_call
  preference,  // {"prompt"?, "chosen", "rejected"}: texts, or lists of messages (without "prompt" what both begin with is the prompt)
};

std::string_view to_string(RowKind kind);
RowKind row_kind(std::string_view name);  // throws Error{invalid_input} that lists the names

// What the file calls the fields.
struct FieldNames {
  std::string text = "text";
  std::string messages;  // empty: "messages", of sharegpt "conversations"
  std::string role;      // of a message; empty: "role", of sharegpt "from"
  std::string content;   // empty: "content", of sharegpt "value"
  std::string tools = "tools";
  std::string instruction = "instruction", input = "input", output = "output", system = "system", history = "history";
  std::string prompt = "prompt", chosen = "chosen", rejected = "rejected";
};

// The field that a key of an Axolotl recipe names: field (of the text), field_messages, field_instruction, ..., and
// message_property_mappings.role and .content. Throws Error{invalid_input} that lists them.
std::string& field_of(FieldNames& names, std::string_view key);

// Messages {role, content: text, tool_calls?, ...} with a role of system, user, assistant or tool; what is learned begins at `first`.
struct Conversation {
  Json messages = Json::array();
  Json tools;  // as chat templates take them, or null
  size_t first = 0;
};

struct Preference {
  Conversation chosen, rejected;
};

using Row = std::variant<std::string, Conversation, Preference>;

// The fields of a row that any kind looks at.
std::vector<std::string> fields_of(const FieldNames& names);

// What an automatic kind is for this row. `where` (file:line) leads the messages of both; they throw Error{invalid_input} that names
// the field.
RowKind kind_of(const Json& row, const FieldNames& names, const std::string& where);
Row read_row(const Json& row, RowKind kind, const FieldNames& names, const std::string& where);

}  // namespace frugal::data
