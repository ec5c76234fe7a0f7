// OpenAI's /v1/responses, without memory: a request brings its whole conversation.
#include <algorithm>

#include "serve/chat.h"
#include "serve/fields.h"
#include "serve/text_answer.h"
#include "text/tokenizer.h"

namespace frugal::serve {
namespace {

using Kind = AnswerItem::Kind;

// What of the request the answer repeats.
Json echoed(const Json& body) {
  Json echo = Json::object();
  static const std::vector<std::pair<const char*, Json>> fields = {{"instructions", nullptr},
                                                                   {"max_output_tokens", nullptr},
                                                                   {"metadata", Json::object()},
                                                                   {"parallel_tool_calls", true},
                                                                   {"reasoning", Json::object()},
                                                                   {"temperature", nullptr},
                                                                   {"text", {{"format", {{"type", "text"}}}}},
                                                                   {"tool_choice", "auto"},
                                                                   {"tools", Json::array()},
                                                                   {"top_p", nullptr},
                                                                   {"user", nullptr}};
  for (const auto& [name, fallback] : fields) {
    const Json* const value = given(body, name);
    echo[name] = value ? *value : fallback;
  }
  return echo;
}

class ResponseFormat final : public AnswerFormat {
 public:
  explicit ResponseFormat(Json echo) : echo_(std::move(echo)) {}
  std::string begin(const AnswerState& state, size_t, const std::vector<engine::TokenInfo>&) override {
    const Json response = this->response(state, "in_progress", false);
    std::string frames = frame("response.created", {{"response", response}});  // in this order: events are numbered
    return frames += frame("response.in_progress", {{"response", response}});
  }
  std::string piece(const AnswerState& state, size_t choice, const AnswerPiece& piece) override {
    const AnswerItem& item = state.choices[choice].items[piece.item];
    std::string frames;
    if (piece.begins) {
      if (piece.item > 0) frames += end_item(state, piece.item - 1, "completed");
      frames += frame("response.output_item.added", {{"output_index", piece.item}, {"item", this->item(state, piece.item, "in_progress", false)}});
      if (item.kind == Kind::text) frames += frame("response.content_part.added", at(state, piece.item, {{"part", part(item, "")}}));
    }
    if (piece.text.empty()) return frames;
    return frames + frame(event_of(item.kind, "delta"), at(state, piece.item, {{"delta", piece.text}}));
  }
  std::string end(const AnswerState& state, size_t index) override {
    const AnswerChoice& choice = state.choices[index];
    return choice.items.empty() ? "" : end_item(state, choice.items.size() - 1, status_of(choice));
  }
  std::string finish(const AnswerState& state) override {
    const std::string status = status_of(state.choices.front());
    return frame("response." + status, {{"response", response(state, status, true)}});
  }
  std::string failure(const std::string& error_body) override {
    const Json error = Json::parse(error_body, nullptr, false).value("error", Json::object());
    return frame("error",
                 {{"code", error.value("code", Json(nullptr))}, {"message", error.value("message", Json(""))}, {"param", error.value("param", Json(nullptr))}});
  }
  Json whole(const AnswerState& state) override { return response(state, status_of(state.choices.front()), true); }

 private:
  static size_t reasoning_tokens(const AnswerState& state) {
    return state.model->loaded.tokenizer->encode(state.choices.front().text(Kind::reasoning), {.add_special = false}).size();
  }
  static std::string status_of(const AnswerChoice& choice) { return choice.end->reason == engine::EndReason::length ? "incomplete" : "completed"; }
  std::string frame(const std::string& type, Json event) {
    event["type"] = type;
    event["sequence_number"] = sequence_++;
    return event_frame(event, type);
  }
  static std::string event_of(Kind kind, const char* what) {
    const char* const name = kind == Kind::text ? "output_text" : kind == Kind::reasoning ? "reasoning_text" : "function_call_arguments";
    return fmt::format("response.{}.{}", name, what);
  }
  static std::string id_of(const AnswerState& state, size_t index) {
    const Kind kind = state.choices.front().items[index].kind;
    return fmt::format("{}_{}{:02}", kind == Kind::text ? "msg" : kind == Kind::reasoning ? "rs" : "fc", state.id, index);
  }
  // Where an event belongs.
  static Json at(const AnswerState& state, size_t index, Json event) {
    event["item_id"] = id_of(state, index);
    event["output_index"] = index;
    const Kind kind = state.choices.front().items[index].kind;
    if (kind != Kind::call) event["content_index"] = 0;
    if (kind == Kind::text && (event.contains("delta") || event.contains("text"))) event["logprobs"] = Json::array();
    return event;
  }
  static Json part(const AnswerItem& item, const std::string& text) {
    if (item.kind == Kind::reasoning) return {{"type", "reasoning_text"}, {"text", text}};
    return {{"type", "output_text"}, {"text", text}, {"annotations", Json::array()}, {"logprobs", Json::array()}};
  }
  static Json item(const AnswerState& state, size_t index, const std::string& status, bool whole) {
    const AnswerItem& item = state.choices.front().items[index];
    const Json content = whole ? Json::array({part(item, item.text)}) : Json::array();
    Json json = {{"id", id_of(state, index)}, {"status", status}};
    switch (item.kind) {
      case Kind::text: json.update({{"type", "message"}, {"role", "assistant"}, {"content", content}}); break;
      case Kind::reasoning: json.update({{"type", "reasoning"}, {"summary", Json::array()}, {"content", content}}); break;
      case Kind::call: json.update({{"type", "function_call"}, {"call_id", item.id}, {"name", item.name}, {"arguments", whole ? item.text : ""}}); break;
    }
    return json;
  }
  std::string end_item(const AnswerState& state, size_t index, const std::string& status) {
    const AnswerItem& item = state.choices.front().items[index];
    std::string frames;
    if (item.kind == Kind::call)
      frames += frame(event_of(item.kind, "done"), at(state, index, {{"name", item.name}, {"arguments", item.text}}));
    else
      frames += frame(event_of(item.kind, "done"), at(state, index, {{"text", item.text}}));
    if (item.kind == Kind::text) frames += frame("response.content_part.done", at(state, index, {{"part", part(item, item.text)}}));
    return frames + frame("response.output_item.done", {{"output_index", index}, {"item", this->item(state, index, status, true)}});
  }
  Json response(const AnswerState& state, const std::string& status, bool whole) const {
    Json response = {{"id", "resp_" + state.id},
                     {"object", "response"},
                     {"created_at", state.created},
                     {"status", status},
                     {"background", false},
                     {"error", nullptr},
                     {"incomplete_details", status == "incomplete" ? Json{{"reason", "max_output_tokens"}} : Json(nullptr)},
                     {"model", state.model->name},
                     {"output", Json::array()},
                     {"previous_response_id", nullptr},
                     {"service_tier", "default"},
                     {"store", false},
                     {"truncation", "disabled"},
                     {"usage", nullptr}};
    response.update(echo_);
    if (!whole) return response;
    const AnswerChoice& choice = state.choices.front();
    for (size_t i = 0; i < choice.items.size(); ++i) response["output"].push_back(item(state, i, i + 1 < choice.items.size() ? "completed" : status, true));
    const AnswerState::Usage usage = state.usage();
    response["usage"] = {{"input_tokens", usage.prompt},
                         {"input_tokens_details", {{"cached_tokens", usage.cached}}},
                         {"output_tokens", usage.generated},
                         {"output_tokens_details", {{"reasoning_tokens", reasoning_tokens(state)}}},
                         {"total_tokens", usage.prompt + usage.generated}};
    return response;
  }
  Json echo_;
  int64_t sequence_ = 0;
};

// Content as chat has it: parts of text, whoever said them.
Json translated_content(const Json& content, const std::string& where) {
  if (!content.is_array()) return content;
  Json parts = Json::array();
  for (const Json& part : content) {
    const Json type = part.is_object() ? part.value("type", Json(nullptr)) : Json(nullptr);
    const bool refusal = type == "refusal";
    if (type != "input_text" && type != "output_text" && type != "text" && !refusal)
      refuse(where, fmt::format(" has the part {}: this model reads text only", printable(dump(part))));
    parts.push_back({{"type", "text"}, {"text", part.value(refusal ? "refusal" : "text", Json(nullptr))}});
  }
  return parts;
}

// The items of a conversation as messages; what one turn of the assistant said and called is one message.
class MessageList {
 public:
  explicit MessageList(FieldNames& own) : own_(own) {}
  void add(const Json& item, const std::string& where) {
    add_item(item, where);
    for (; named_ < messages_.size(); ++named_) own_[fmt::format("messages[{}]", named_)] = where;
  }
  Json take() { return std::move(messages_); }

 private:
  void add_item(const Json& item, const std::string& where) {
    if (!item.is_object()) refuse(where, " must be an object");
    const Json type = item.value("type", Json("message"));
    if (type == "message") {
      Json message = {{"role", item.value("role", Json(nullptr))}, {"content", translated_content(item.value("content", Json(nullptr)), where)}};
      if (message["role"] != "assistant" || !assistant()["content"].is_null()) return messages_.push_back(std::move(message));
      assistant()["content"] = message["content"];
    } else if (type == "function_call") {
      assistant()["tool_calls"].push_back({{"id", item.value("call_id", Json(nullptr))},
                                           {"type", "function"},
                                           {"function", {{"name", item.value("name", Json(nullptr))}, {"arguments", item.value("arguments", Json(nullptr))}}}});
    } else if (type == "function_call_output") {
      messages_.push_back({{"role", "tool"},
                           {"tool_call_id", item.value("call_id", Json(nullptr))},
                           {"content", translated_content(item.value("output", Json(nullptr)), where)}});
    } else if (type == "reasoning") {
      std::string text;
      for (const Json& part : item.value("content", Json::array())) {
        if (part.is_object() && part.value("text", Json(nullptr)).is_string()) text += part["text"].get<std::string>();
      }
      if (!text.empty()) assistant()["reasoning_content"] = text;
    } else {
      refuse(where, fmt::format(".type {} is not supported", printable(dump(type))));
    }
  }
  Json& assistant() {
    if (messages_.empty() || messages_.back()["role"] != "assistant") messages_.push_back({{"role", "assistant"}, {"content", nullptr}});
    return messages_.back();
  }
  FieldNames& own_;
  Json messages_ = Json::array();
  size_t named_ = 0;  // messages whose item is in own_
};

Json translated_tools(const Json& tools, FieldNames& own) {
  if (!tools.is_array()) refuse("tools", " must be a list");
  Json result = Json::array();
  for (const Json& tool : tools) {
    own[fmt::format("tools[{}].function", result.size())] = fmt::format("tools[{}]", result.size());
    own[fmt::format("tools/{}/function", result.size())] = fmt::format("tools/{}", result.size());
    const Json type = tool.is_object() ? tool.value("type", Json(nullptr)) : Json(nullptr);
    if (type != "function") refuse("tools", fmt::format(" of type {} are not run here", printable(dump(type))));
    Json function = tool;
    function.erase("type");
    result.push_back({{"type", "function"}, {"function", function}});
  }
  return result;
}

// The same request in the words of chat, whose names for what has another here are put into `own`.
Json translated(const Json& body, FieldNames& own) {
  own = {{"max_tokens", "max_output_tokens"},
         {"messages", "input"},
         {"response_format", "text.format"},
         {"response_format.json_schema", "text.format"},
         {"reasoning_effort", "reasoning.effort"}};
  for (const char* name : {"previous_response_id", "conversation", "prompt"}) {
    if (given(body, name)) refuse(name, " is not supported: nothing is kept between requests, send the whole conversation as input");
  }
  if (flag(body, "background", false)) refuse("background", " is not supported");
  // auto allows to cut what does not fit; that is refused all the same.
  if (const Json* cut = given(body, "truncation"); cut && *cut != "auto" && *cut != "disabled") refuse("truncation", " must be auto or disabled");
  Json result = Json::object();
  static const std::vector<std::string> same = {"model", "temperature", "top_p", "stream", "parallel_tool_calls",
                                                "seed",  "stop",        "top_k", "min_p",  "chat_template_kwargs"};
  for (const std::string& name : same) {
    if (given(body, name.c_str())) result[name] = body[name];
  }
  static const std::vector<std::string> others = {"input",   "truncation", "background",   "previous_response_id", "conversation",     "prompt",
                                                  "include", "store",      "service_tier", "safety_identifier",    "prompt_cache_key", "stream_options"};
  log_unknown(body, [echo = echoed(body)](std::string_view name) {
    return std::ranges::find(same, name) != same.end() || std::ranges::find(others, name) != others.end() || echo.contains(name);
  });
  if (given(body, "max_output_tokens")) result["max_tokens"] = body["max_output_tokens"];
  MessageList messages(own);
  const Json* const input = given(body, "input");
  if (!input || !(input->is_string() || input->is_array())) refuse("input", " must be a text or a list of items");
  if (given(body, "instructions")) messages.add({{"role", "system"}, {"content", body["instructions"]}}, "instructions");
  if (input->is_string()) messages.add({{"role", "user"}, {"content", *input}}, "input");
  for (size_t i = 0; input->is_array() && i < input->size(); ++i) messages.add((*input)[i], fmt::format("input[{}]", i));
  result["messages"] = messages.take();
  if (given(body, "tools")) result["tools"] = translated_tools(body["tools"], own);
  if (const Json* choice = given(body, "tool_choice")) {
    result["tool_choice"] = *choice;
    if (choice->is_object() && choice->value("type", Json(nullptr)) == "function")
      result["tool_choice"] = {{"type", "function"}, {"function", {{"name", choice->value("name", Json(nullptr))}}}};
  }
  if (const Json* reasoning = given(body, "reasoning"); reasoning && reasoning->is_object() && reasoning->contains("effort"))
    result["reasoning_effort"] = (*reasoning)["effort"];
  const Json* const text = given(body, "text");
  if (text && !text->is_object()) refuse("text", " must be an object");
  if (const Json format = text ? text->value("format", Json(nullptr)) : Json(nullptr); !format.is_null()) {
    if (!format.is_object()) refuse("text.format", " must be an object");
    const bool schema = format.value("type", Json(nullptr)) == "json_schema";
    result["response_format"] = schema ? Json{{"type", "json_schema"}, {"json_schema", format}} : format;
  }
  return result;
}

void respond(Call& call) {
  const Json body = call.body(), chat = call.translated(body, translated);
  const std::shared_ptr<ServedModel> model = call.service.model_of(chat);
  auto [request, reading] = read_chat(call, chat, *model);
  if (request.max_tokens == 0) throw ApiError(400, "max_output_tokens must be at least 1", "max_output_tokens");
  TextAnswer::begin(call, model, {std::move(request)}, reading, flag(body, "stream", false), std::make_unique<ResponseFormat>(echoed(body)));
}

void count_input(Call& call) {
  const Json chat = call.translated(call.body(), translated);
  send_json(*call.response, {{"object", "response.input_tokens"}, {"input_tokens", chat_prompt(chat, *call.service.model_of(chat)).size()}});
}

}  // namespace

std::vector<Route> responses_routes() {
  return {{"POST", "/v1/responses", respond, true}, {"POST", "/responses", respond, true}, {"POST", "/v1/responses/input_tokens", count_input}};
}

}  // namespace frugal::serve
