// Anthropic's /v1/messages and /v1/messages/count_tokens.
#include "serve/fields.h"
#include "serve/text_answer.h"

namespace frugal::serve {
namespace {

class MessageFormat final : public AnswerFormat {
 public:
  std::string begin(const AnswerState& state, size_t, const std::vector<engine::TokenInfo>&) override {
    Json message = head(state);
    message["content"] = Json::array();
    message["stop_reason"] = message["stop_sequence"] = nullptr;
    message["usage"] = {{"input_tokens", state.prompt_tokens}, {"output_tokens", 0}};
    return frame({{"type", "message_start"}, {"message", message}}) +
           frame({{"type", "content_block_start"}, {"index", 0}, {"content_block", {{"type", "text"}, {"text", ""}}}}) + frame({{"type", "ping"}});
  }
  std::string piece(const AnswerState&, size_t, const engine::Piece& piece) override {
    if (piece.text.empty()) return {};
    return frame({{"type", "content_block_delta"}, {"index", 0}, {"delta", {{"type", "text_delta"}, {"text", piece.text}}}});
  }
  std::string end(const AnswerState& state, size_t index) override {
    const engine::ChoiceEnd& end = *state.choices[index].end;
    return frame({{"type", "content_block_stop"}, {"index", 0}}) + frame({{"type", "message_delta"},
                                                                          {"delta", {{"stop_reason", reason_of(end)}, {"stop_sequence", sequence_of(end)}}},
                                                                          {"usage", {{"output_tokens", end.generated_tokens}}}});
  }
  std::string finish(const AnswerState&) override { return frame({{"type", "message_stop"}}); }
  std::string failure(const std::string& error_body) override { return event_frame(error_body, "error"); }
  Json whole(const AnswerState& state) override {
    const AnswerChoice& choice = state.choices.front();
    const AnswerState::Usage usage = state.usage();
    Json message = head(state);
    message["content"] = Json::array({{{"type", "text"}, {"text", choice.text}}});
    message["stop_reason"] = reason_of(*choice.end);
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
  static std::string reason_of(const engine::ChoiceEnd& end) {
    if (end.reason == engine::EndReason::length) return "max_tokens";
    return end.stop_text.empty() ? "end_turn" : "stop_sequence";
  }
  static Json sequence_of(const engine::ChoiceEnd& end) { return end.stop_text.empty() ? Json(nullptr) : Json(end.stop_text); }
};

// The same request in OpenAI's words.
Json translated(const Json& body) {
  Json result = Json::object();
  for (const char* same : {"model", "max_tokens", "temperature", "top_p", "top_k", "stream", "tools"}) {
    if (body.contains(same)) result[same] = body[same];
  }
  if (const auto thinking = body.find("thinking"); thinking != body.end() && thinking->is_object() && thinking->value("type", Json("")) == "enabled") {
    throw ApiError(400, "thinking is not supported", "thinking");
  }
  Json messages = Json::array();
  if (const auto system = body.find("system"); system != body.end() && !system->is_null()) messages.push_back({{"role", "system"}, {"content", *system}});
  const auto given = body.find("messages");
  if (given == body.end() || !given->is_array()) throw ApiError(400, "messages must be a list", "messages");
  for (const Json& message : *given) messages.push_back(message);
  result["messages"] = std::move(messages);
  if (const auto stops = body.find("stop_sequences"); stops != body.end()) result["stop"] = *stops;
  return result;
}

void message(Call& call) {
  const Json body = translated(call.body());
  ServedModel& model = call.service.model_of(body);
  engine::Request request = read_request(body, model);
  if (request.max_tokens < 1) throw ApiError(400, "max_tokens must be at least 1", "max_tokens");
  request.prompt = model.chat_prompt(body);
  request.scope = call.scope();
  TextAnswer::begin(call, model, {std::move(request)}, flag(body, "stream", false), std::make_unique<MessageFormat>());
}

void count_tokens(Call& call) {
  const Json body = translated(call.body());
  send_json(*call.response, {{"input_tokens", call.service.model_of(body).chat_prompt(body).size()}});
}

}  // namespace

std::vector<Route> anthropic_routes() { return {{"POST", "/v1/messages", message}, {"POST", "/v1/messages/count_tokens", count_tokens}}; }

}  // namespace frugal::serve
