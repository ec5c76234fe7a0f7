// Anthropic's /v1/messages and /v1/messages/count_tokens.
#include "serve/chat.h"
#include "serve/fields.h"
#include "serve/text_answer.h"

namespace frugal::serve {
namespace {

using Kind = AnswerItem::Kind;

class MessageFormat final : public AnswerFormat {
 public:
  std::string begin(const AnswerState& state, size_t, const std::vector<engine::TokenInfo>&) override {
    Json message = head(state);
    message["content"] = Json::array();
    message["stop_reason"] = message["stop_sequence"] = nullptr;
    message["usage"] = {{"input_tokens", state.prompt_tokens}, {"output_tokens", 0}};
    return frame({{"type", "message_start"}, {"message", message}}) + frame({{"type", "ping"}});
  }
  std::string piece(const AnswerState& state, size_t choice, const AnswerPiece& piece) override {
    const AnswerItem& item = state.choices[choice].items[piece.item];
    std::string frames;
    if (piece.begins) {
      if (piece.item > 0) frames += frame({{"type", "content_block_stop"}, {"index", piece.item - 1}});
      frames += frame({{"type", "content_block_start"}, {"index", piece.item}, {"content_block", block(item, {}, Json::object())}});
    }
    if (piece.text.empty()) return frames;
    Json delta;
    switch (item.kind) {
      case Kind::text: delta = {{"type", "text_delta"}, {"text", piece.text}}; break;
      case Kind::reasoning: delta = {{"type", "thinking_delta"}, {"thinking", piece.text}}; break;
      case Kind::call: delta = {{"type", "input_json_delta"}, {"partial_json", piece.text}}; break;
    }
    return frames + frame({{"type", "content_block_delta"}, {"index", piece.item}, {"delta", delta}});
  }
  std::string end(const AnswerState& state, size_t index) override {
    const AnswerChoice& choice = state.choices[index];
    const std::string stop = choice.items.empty() ? "" : frame({{"type", "content_block_stop"}, {"index", choice.items.size() - 1}});
    return stop + frame({{"type", "message_delta"},
                         {"delta", {{"stop_reason", reason_of(choice)}, {"stop_sequence", sequence_of(*choice.end)}}},
                         {"usage", {{"output_tokens", choice.end->generated_tokens}}}});
  }
  std::string finish(const AnswerState&) override { return frame({{"type", "message_stop"}}); }
  std::string failure(const std::string& error_body) override { return event_frame(error_body, "error"); }
  Json whole(const AnswerState& state) override {
    const AnswerChoice& choice = state.choices.front();
    const AnswerState::Usage usage = state.usage();
    Json message = head(state);
    message["content"] = Json::array();
    for (const AnswerItem& item : choice.items) {
      Json input = Json::parse(item.kind == Kind::call ? item.text : "{}", nullptr, false);
      message["content"].push_back(block(item, item.text, input.is_object() ? std::move(input) : Json::object()));  // cut off: as far as JSON goes
    }
    message["stop_reason"] = reason_of(choice);
    message["stop_sequence"] = sequence_of(*choice.end);
    message["usage"] = {{"input_tokens", usage.prompt - usage.cached},
                        {"cache_read_input_tokens", usage.cached},
                        {"cache_creation_input_tokens", 0},
                        {"output_tokens", usage.generated}};
    return message;
  }

 private:
  static std::string frame(const Json& event) { return event_frame(event, event["type"].get<std::string>()); }
  static Json head(const AnswerState& state) { return {{"id", "msg_" + state.id}, {"type", "message"}, {"role", "assistant"}, {"model", state.model->name}}; }
  static Json block(const AnswerItem& item, const std::string& text, const Json& input) {
    switch (item.kind) {
      case Kind::text: break;
      case Kind::reasoning: return {{"type", "thinking"}, {"thinking", text}, {"signature", ""}};
      case Kind::call: return {{"type", "tool_use"}, {"id", item.id}, {"name", item.name}, {"input", input}};
    }
    return {{"type", "text"}, {"text", text}};
  }
  static std::string reason_of(const AnswerChoice& choice) {
    if (choice.end->reason == engine::EndReason::length) return "max_tokens";
    return !choice.end->stop_text.empty() ? "stop_sequence" : choice.calls() ? "tool_use" : "end_turn";
  }
  static Json sequence_of(const engine::ChoiceEnd& end) { return end.stop_text.empty() ? Json(nullptr) : Json(end.stop_text); }
};

// A value of an object, null where it is absent or the object is none.
const Json& value_of(const Json& object, const char* name) {
  static const Json kNull;
  const Json* const value = given(object, name);
  return value ? *value : kNull;
}

// Blocks as OpenAI's messages: results of tools come first, each a message of its own.
void add_message(Json& messages, const Json& message, size_t index) {
  const Json& content = value_of(message, "content");
  if (!content.is_array()) return messages.push_back(message);
  const std::string where = fmt::format("messages[{}].content", index);
  Json kept = Json::array(), calls = Json::array();
  std::string reasoning;
  for (const Json& block : content) {
    const Json& type = value_of(block, "type");
    if (type == "tool_result") {
      const Json& result = value_of(block, "content");
      messages.push_back({{"role", "tool"}, {"tool_call_id", value_of(block, "tool_use_id")}, {"content", result.is_null() ? Json("") : result}});
    } else if (type == "tool_use") {
      calls.push_back(
          {{"id", value_of(block, "id")}, {"type", "function"}, {"function", {{"name", value_of(block, "name")}, {"arguments", value_of(block, "input")}}}});
    } else if (type == "thinking") {
      if (!value_of(block, "thinking").is_string()) refuse(where, " has a thinking block without thinking");
      reasoning += block["thinking"].get<std::string>();
    } else if (type != "redacted_thinking") {
      kept.push_back(block);
    }
  }
  if (kept.empty() && calls.empty() && reasoning.empty()) return;
  Json one = {{"role", value_of(message, "role")}, {"content", kept}};
  if (!calls.empty()) one["tool_calls"] = calls;
  if (!reasoning.empty()) one["reasoning_content"] = reasoning;
  messages.push_back(std::move(one));
}

Json translated_tools(const Json& tools, FieldNames& own) {
  if (!tools.is_array()) refuse("tools", " must be a list");
  Json result = Json::array();
  for (const Json& tool : tools) {
    const size_t index = result.size();
    own[fmt::format("tools[{}].function", index)] = fmt::format("tools[{}]", index);
    own[fmt::format("tools[{}].function.parameters", index)] = fmt::format("tools[{}].input_schema", index);
    own[fmt::format("tools/{}/function/parameters", index)] = fmt::format("tools/{}/input_schema", index);
    const Json& type = value_of(tool, "type");
    if (!type.is_null() && type != "custom") refuse("tools", fmt::format(" of type {} are not run here", printable(dump(type))));
    Json function = {{"name", value_of(tool, "name")}, {"description", value_of(tool, "description")}, {"parameters", value_of(tool, "input_schema")}};
    if (!value_of(tool, "strict").is_null()) function["strict"] = tool["strict"];
    result.push_back({{"type", "function"}, {"function", function}});
  }
  return result;
}

// The same request in OpenAI's words, whose names for what has another here are put into `own`.
Json translated(const Json& body, FieldNames& own) {
  log_unknown(body, {"model", "max_tokens", "temperature", "top_p", "top_k", "stream", "thinking", "system", "messages", "stop_sequences", "tools",
                     "tool_choice", "output_config", "output_format", "metadata", "service_tier", "cache_control"});
  Json result = Json::object();
  for (const char* same : {"model", "max_tokens", "temperature", "top_p", "top_k", "stream"}) {
    if (body.contains(same)) result[same] = body[same];
  }
  own["chat_template_kwargs"] = "thinking";
  result["chat_template_kwargs"] = {{"enable_thinking", value_of(value_of(body, "thinking"), "type") == "enabled"}};
  Json messages = Json::array();
  if (const Json& system = value_of(body, "system"); !system.is_null()) {
    messages.push_back({{"role", "system"}, {"content", system}});
    own["messages[0]"] = "system";
  }
  const Json& list = value_of(body, "messages");
  if (!list.is_array()) refuse("messages", " must be a list");
  for (size_t i = 0; i < list.size(); ++i) {
    const size_t first = messages.size();
    add_message(messages, list[i], i);
    for (size_t k = first; k < messages.size(); ++k) own[fmt::format("messages[{}]", k)] = fmt::format("messages[{}]", i);
  }
  result["messages"] = std::move(messages);
  if (const auto stops = body.find("stop_sequences"); stops != body.end()) {
    result["stop"] = *stops;
    own["stop"] = "stop_sequences";
  }
  if (const Json& tools = value_of(body, "tools"); !tools.is_null()) result["tools"] = translated_tools(tools, own);
  if (const Json& choice = value_of(body, "tool_choice"); !choice.is_null()) {
    const Json& type = value_of(choice, "type");
    if (type == "tool")
      result["tool_choice"] = {{"type", "function"}, {"function", {{"name", value_of(choice, "name")}}}};
    else if (type == "any" || type == "auto" || type == "none")
      result["tool_choice"] = type == "any" ? Json("required") : type;
    else
      refuse("tool_choice", ".type must be auto, any, tool or none");
    if (value_of(choice, "disable_parallel_tool_use") == true) result["parallel_tool_calls"] = false;
  }
  Json format = value_of(value_of(body, "output_config"), "format");
  const std::string field = format.is_null() ? "output_format" : "output_config.format";
  if (format.is_null()) format = value_of(body, "output_format");
  if (!format.is_null()) {
    if (value_of(format, "type") != "json_schema") refuse(field, ".type must be json_schema");
    own["response_format"] = own["response_format.json_schema"] = field;
    result["response_format"] = {{"type", "json_schema"}, {"json_schema", {{"schema", value_of(format, "schema")}}}};
  }
  return result;
}

void message(Call& call) {
  const Json body = call.translated(call.body(), translated);
  const std::shared_ptr<ServedModel> model = call.service.model_of(body);
  auto [request, reading] = read_chat(call, body, *model);
  if (request.max_tokens < 1) throw ApiError(400, "max_tokens must be at least 1", "max_tokens");
  TextAnswer::begin(call, model, {std::move(request)}, reading, flag(body, "stream", false), std::make_unique<MessageFormat>());
}

void count_tokens(Call& call) {
  const Json body = call.translated(call.body(), translated);
  send_json(*call.response, {{"input_tokens", chat_prompt(body, *call.service.model_of(body)).size()}});
}

}  // namespace

std::vector<Route> anthropic_routes() { return {{"POST", "/v1/messages", message, true}, {"POST", "/v1/messages/count_tokens", count_tokens}}; }

}  // namespace frugal::serve
