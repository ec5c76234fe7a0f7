#include "data/row.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "base/error.h"

namespace frugal::data {
namespace {

constexpr size_t kMostMessages = 10'000;  // as in serving

constexpr std::array<std::pair<std::string_view, RowKind>, 6> kKinds = {{{"automatic", RowKind::automatic},
                                                                         {"text", RowKind::text},
                                                                         {"chat", RowKind::chat},
                                                                         {"alpaca", RowKind::alpaca},
                                                                         {"sharegpt", RowKind::sharegpt},
                                                                         {"preference", RowKind::preference}}};

// What data sets call a speaker.
constexpr std::array<std::pair<std::string_view, std::string_view>, 13> kRoles = {{{"system", "system"},
                                                                                   {"developer", "system"},
                                                                                   {"user", "user"},
                                                                                   {"human", "user"},
                                                                                   {"assistant", "assistant"},
                                                                                   {"gpt", "assistant"},
                                                                                   {"chatgpt", "assistant"},
                                                                                   {"model", "assistant"},
                                                                                   {"tool", "tool"},
                                                                                   {"observation", "tool"},
                                                                                   {"function", "tool"},
                                                                                   {"function_response", "tool"},
                                                                                   {"function_call", "function_call"}}};

template <typename Table>
std::string names_of(const Table& table) {
  std::string names;
  for (const auto& row : table) names += fmt::format("{}{}", names.empty() ? "" : ", ", row.first);
  return names;
}

std::string shown(const Json* value) { return value ? printable(value->dump(-1, ' ', true, Json::error_handler_t::replace)) : "missing"; }

[[noreturn]] void refuse(const std::string& where, std::string_view rule, const Json* value) {
  fail(ErrorKind::invalid_input, "{} {}, is {}", where, rule, shown(value));
}

const Json* find(const Json& object, std::string_view key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

std::string text_at(const Json& row, const std::string& key, const std::string& where) {
  const Json* value = find(row, key);
  if (!value || !value->is_string()) refuse(where + key, "must be a string", value);
  return value->get<std::string>();
}

std::string filled_text_at(const Json& row, const std::string& key, const std::string& where) {
  std::string text = text_at(row, key, where);
  if (text.empty()) fail(ErrorKind::invalid_input, "{}{} must not be empty", where, key);
  return text;
}

std::string text_or_none(const Json& row, const std::string& key, const std::string& where) { return find(row, key) ? text_at(row, key, where) : ""; }

Json message_of(std::string_view role, std::string content) { return {{"role", role}, {"content", std::move(content)}}; }

// JSON, or a text that holds JSON.
Json unquoted(const Json& value, const std::string& where) { return value.is_string() ? parse_json(value.get_ref<const std::string&>(), where) : value; }

// Arguments as an object, which is what templates write as JSON; the API has them as text.
Json call_of(const Json& call, const std::string& where) {
  if (!call.is_object()) refuse(where, "must be an object", &call);
  const Json* function = find(call, "function");
  if (!function) function = &call;
  if (!function->is_object()) refuse(where + ".function", "must be an object", function);
  Json arguments = Json::object();
  if (const Json* given = find(*function, "arguments"); given && *given != "") arguments = unquoted(*given, where + ".arguments");
  if (!arguments.is_object()) refuse(where + ".arguments", "must be a JSON object", &arguments);
  Json result = {{"type", "function"}, {"function", {{"name", filled_text_at(*function, "name", where + ".")}, {"arguments", std::move(arguments)}}}};
  if (const Json* id = find(call, "id")) result["id"] = *id;
  return result;
}

Json calls_of(const Json& calls, const std::string& where) {
  if (!calls.is_array()) refuse(where, "must be a list", &calls);
  Json result = Json::array();
  for (size_t i = 0; i < calls.size(); ++i) result.push_back(call_of(calls[i], fmt::format("{}[{}]", where, i)));
  return result;
}

Json tools_of(const Json& row, const std::string& key, const std::string& where) {
  const Json* given = find(row, key);
  if (!given || *given == "") return nullptr;
  const Json tools = unquoted(*given, where + key);
  if (!tools.is_array()) refuse(where + key, "must be a list", &tools);
  Json result = Json::array();
  for (size_t i = 0; i < tools.size(); ++i) {
    const std::string at = fmt::format("{}{}[{}]", where, key, i);
    if (!tools[i].is_object()) refuse(at, "must be an object", &tools[i]);
    const Json tool = tools[i].contains("function") ? tools[i] : Json{{"type", "function"}, {"function", tools[i]}};
    if (!tool["function"].is_object()) refuse(at + ".function", "must be an object", &tool["function"]);
    filled_text_at(tool["function"], "name", at + ".function.");
    result.push_back(tool);
  }
  return result.empty() ? Json() : result;
}

std::string content_of(const Json* content, bool may_lack, const std::string& where) {
  if (!content && may_lack) return "";
  if (!content || !(content->is_string() || content->is_array())) refuse(where, "must be a string or a list of text parts", content);
  if (content->is_string()) return content->get<std::string>();
  std::string text;
  for (size_t i = 0; i < content->size(); ++i) {
    const Json& part = (*content)[i];
    const std::string at = fmt::format("{}[{}]", where, i);
    if (!part.is_object() || part.value("type", Json("text")) != "text") refuse(at, "must be a part of type text", &part);
    text += text_at(part, "text", at + ".");
  }
  return text;
}

// The names of a message's fields.
struct MessageNames {
  std::string role, content;
  bool bare = false;  // nothing else of the message is meant for a template
};

Json read_message(const Json& message, const MessageNames& names, const std::string& where) {
  if (!message.is_object()) refuse(where, "must be an object", &message);
  const Json* role = find(message, names.role);
  const auto known = std::ranges::find_if(kRoles, [&](const auto& row) { return role && *role == row.first; });
  if (known == kRoles.end()) refuse(where + "." + names.role, "must be one of " + names_of(kRoles), role);
  const Json* content = find(message, names.content);
  if (known->second == "function_call") {
    if (!content) refuse(where + "." + names.content, "must be the call as JSON", content);
    const Json calls = unquoted(*content, where + "." + names.content);
    Json result = message_of("assistant", "");
    result["tool_calls"] = calls_of(calls.is_array() ? calls : Json::array({calls}), where + "." + names.content);
    return result;
  }
  Json result = message_of(known->second, content_of(content, known->second == "assistant", where + "." + names.content));
  if (names.bare) return result;
  for (const auto& [key, value] : message.items()) {
    if (key != names.role && key != names.content && key != "tool_calls" && !result.contains(key)) result[key] = value;
  }
  if (const Json* calls = find(message, "tool_calls"); calls && !calls->empty()) {
    if (result["role"] != "assistant") fail(ErrorKind::invalid_input, "{}.tool_calls are of an assistant", where);
    result["tool_calls"] = calls_of(*calls, where + ".tool_calls");
  }
  return result;
}

Json read_messages(const Json* list, const MessageNames& names, const std::string& where) {
  if (!list || !list->is_array()) refuse(where, "must be a list of messages", list);
  if (list->empty()) fail(ErrorKind::invalid_input, "{} must not be empty", where);
  if (list->size() > kMostMessages) fail(ErrorKind::invalid_input, "{} has {} entries, {} are allowed", where, list->size(), kMostMessages);
  Json result = Json::array();
  for (size_t i = 0; i < list->size(); ++i) result.push_back(read_message((*list)[i], names, fmt::format("{}[{}]", where, i)));
  return result;
}

std::string or_default(const std::string& name, std::string_view otherwise) { return name.empty() ? std::string(otherwise) : name; }

MessageNames message_names(const FieldNames& names, bool sharegpt) {
  return {or_default(names.role, sharegpt ? "from" : "role"), or_default(names.content, sharegpt ? "value" : "content"), sharegpt};
}

Conversation read_conversation(const Json& row, const FieldNames& names, bool sharegpt, const std::string& where) {
  const std::string key = or_default(names.messages, sharegpt ? "conversations" : "messages");
  Conversation result{read_messages(find(row, key), message_names(names, sharegpt), where + key), tools_of(row, names.tools, where)};
  const std::string system = sharegpt ? text_or_none(row, names.system, where) : "";
  if (!system.empty() && result.messages[0]["role"] != "system") result.messages.insert(result.messages.begin(), message_of("system", system));
  return result;
}

Conversation read_alpaca(const Json& row, const FieldNames& names, const std::string& where) {
  Conversation result;
  if (const std::string system = text_or_none(row, names.system, where); !system.empty()) result.messages.push_back(message_of("system", system));
  if (const Json* history = find(row, names.history)) {
    if (!history->is_array()) refuse(where + names.history, "must be a list of [question, answer]", history);
    for (const Json& turn : *history) {
      if (!turn.is_array() || turn.size() != 2 || !turn[0].is_string() || !turn[1].is_string())
        refuse(where + names.history, "must be a list of [question, answer]", &turn);
      result.messages.push_back(message_of("user", turn[0]));
      result.messages.push_back(message_of("assistant", turn[1]));
    }
  }
  std::string question = text_at(row, names.instruction, where);
  if (const std::string input = text_or_none(row, names.input, where); !input.empty()) question += (question.empty() ? "" : "\n") + input;
  if (question.empty()) fail(ErrorKind::invalid_input, "{}{} must not be empty", where, names.instruction);
  result.messages.push_back(message_of("user", std::move(question)));
  result.messages.push_back(message_of("assistant", filled_text_at(row, names.output, where)));
  result.tools = tools_of(row, names.tools, where);
  return result;
}

// A text is one message of `role`.
Json messages_or_text(const Json& row, const std::string& key, std::string_view role, const FieldNames& names, const std::string& where) {
  const Json* value = find(row, key);
  if (!value || !(value->is_string() || value->is_array())) refuse(where + key, "must be a string or a list of messages", value);
  if (value->is_string()) return Json::array({message_of(role, filled_text_at(row, key, where))});
  return read_messages(value, message_names(names, false), where + key);
}

Preference read_preference(const Json& row, const FieldNames& names, const std::string& where) {
  Json chosen = messages_or_text(row, names.chosen, "assistant", names, where), rejected = messages_or_text(row, names.rejected, "assistant", names, where);
  Json prompt = Json::array();
  if (find(row, names.prompt)) {
    prompt = messages_or_text(row, names.prompt, "user", names, where);
    if (const std::string system = text_or_none(row, names.system, where); !system.empty() && prompt[0]["role"] != "system")
      prompt.insert(prompt.begin(), message_of("system", system));
  } else {
    size_t common = 0;
    while (common < chosen.size() && common < rejected.size() && chosen[common] == rejected[common]) ++common;
    if (common == 0) refuse(where + names.prompt, fmt::format("is needed, as {} and {} do not begin alike", names.chosen, names.rejected), nullptr);
    prompt.get_ref<Json::array_t&>().assign(chosen.begin(), chosen.begin() + static_cast<std::ptrdiff_t>(common));
    chosen.erase(chosen.begin(), chosen.begin() + static_cast<std::ptrdiff_t>(common));
    rejected.erase(rejected.begin(), rejected.begin() + static_cast<std::ptrdiff_t>(common));
  }
  const Json tools = tools_of(row, names.tools, where);
  const auto whole = [&](const Json& answer, const std::string& key) {
    if (answer.empty()) fail(ErrorKind::invalid_input, "{}{} says no more than the prompt", where, key);
    Conversation result{prompt, tools, prompt.size()};
    for (const Json& message : answer) result.messages.push_back(message);
    return result;
  };
  return {whole(chosen, names.chosen), whole(rejected, names.rejected)};
}

}  // namespace

std::string_view to_string(RowKind kind) {
  return std::ranges::find_if(kKinds, [&](const auto& row) { return row.second == kind; })->first;
}

RowKind row_kind(std::string_view name) {
  const auto found = std::ranges::find_if(kKinds, [&](const auto& row) { return row.first == name; });
  if (found == kKinds.end()) fail(ErrorKind::invalid_input, "no rows of the kind {}; the kinds are {}", printable(name), names_of(kKinds));
  return found->second;
}

std::string& field_of(FieldNames& names, std::string_view key) {
  static constexpr std::array<std::pair<std::string_view, std::string FieldNames::*>, 13> kFields = {
      {{"field", &FieldNames::text},
       {"field_messages", &FieldNames::messages},
       {"message_property_mappings.role", &FieldNames::role},
       {"message_property_mappings.content", &FieldNames::content},
       {"field_tools", &FieldNames::tools},
       {"field_instruction", &FieldNames::instruction},
       {"field_input", &FieldNames::input},
       {"field_output", &FieldNames::output},
       {"field_system", &FieldNames::system},
       {"field_history", &FieldNames::history},
       {"field_prompt", &FieldNames::prompt},
       {"field_chosen", &FieldNames::chosen},
       {"field_rejected", &FieldNames::rejected}}};
  const auto found = std::ranges::find_if(kFields, [&](const auto& row) { return row.first == key; });
  if (found == kFields.end()) fail(ErrorKind::invalid_input, "{} names no field of a row; those that do are {}", printable(key), names_of(kFields));
  return names.*found->second;
}

std::vector<std::string> fields_of(const FieldNames& names) {
  std::vector<std::string> result = {names.text,    names.tools,  names.instruction, names.input,    names.output, names.system,
                                     names.history, names.prompt, names.chosen,      names.rejected, "messages",   "conversations"};
  if (!names.messages.empty()) result.push_back(names.messages);
  return result;
}

RowKind kind_of(const Json& row, const FieldNames& names, const std::string& where) {
  const auto has = [&](const std::string& key) { return row.is_object() && find(row, key); };
  if (has(names.chosen) && has(names.rejected)) return RowKind::preference;
  if (has(or_default(names.messages, "messages"))) return RowKind::chat;
  if (has("conversations")) return RowKind::sharegpt;
  if (has(names.instruction) && has(names.output)) return RowKind::alpaca;
  if (has(names.text)) return RowKind::text;
  fail(ErrorKind::invalid_input,
       "{}: not a row of a known kind: {}. A row has {}, messages, conversations, {} and {}, or {} and {}; names of fields can be mapped (docs/data.md)", where,
       shown(&row), names.text, names.instruction, names.output, names.chosen, names.rejected);
}

Row read_row(const Json& row, RowKind kind, const FieldNames& names, const std::string& where) {
  if (!row.is_object()) refuse(where + ": a row", "must be an object", &row);
  const std::string at = where + ": ";
  switch (kind) {
    case RowKind::text: return filled_text_at(row, names.text, at);
    case RowKind::chat: return read_conversation(row, names, false, at);
    case RowKind::sharegpt: return read_conversation(row, names, true, at);
    case RowKind::alpaca: return read_alpaca(row, names, at);
    case RowKind::preference: return read_preference(row, names, at);
    case RowKind::automatic: break;
  }
  return read_row(row, kind_of(row, names, where), names, where);
}

}  // namespace frugal::data
