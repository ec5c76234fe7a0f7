// OpenAI's /v1/completions and /v1/chat/completions.
#include <algorithm>
#include <cmath>

#include "serve/chat.h"
#include "serve/fields.h"
#include "serve/structure.h"
#include "serve/text_answer.h"
#include "text/tokenizer.h"

namespace frugal::serve {
namespace {

constexpr size_t kMostPrompts = 64;

size_t characters(std::string_view text) {
  return static_cast<size_t>(std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string reason_of(const AnswerChoice& choice) {
  switch (choice.end->reason) {
    case engine::EndReason::stop: return choice.calls() ? "tool_calls" : "stop";
    case engine::EndReason::length: return "length";
    case engine::EndReason::cancelled: break;
  }
  return "abort";
}

Json stop_of(const engine::ChoiceEnd& end) { return end.stop_id >= 0 ? Json(end.stop_id) : end.stop_text.empty() ? Json(nullptr) : Json(end.stop_text); }

// What both endpoints have in common; they differ in how text and log-probabilities are written.
class OpenAiFormat : public AnswerFormat {
 public:
  OpenAiFormat(const Json& body, int64_t top_logprobs) : top_logprobs_(top_logprobs) {
    if (const auto options = body.find("stream_options"); options != body.end() && options->is_object()) {
      const Json wanted = options->value("include_usage", Json(false));
      if (!wanted.is_boolean()) throw ApiError(400, "stream_options.include_usage must be true or false", "stream_options");
      include_usage_ = wanted == true;
    }
  }
  std::string begin(const AnswerState& state, size_t index, const std::vector<engine::TokenInfo>& prompt) override {
    const std::string text = first_text(state, index);
    if (text.empty() && !always_begins()) return {};
    return event(state, with_logprobs(state, index, first(state, index, text), prompt), nullptr);
  }
  std::string piece(const AnswerState& state, size_t index, const AnswerPiece& piece) override {
    return event(state, with_logprobs(state, index, part(state, index, piece), piece.tokens), nullptr);
  }
  std::string end(const AnswerState& state, size_t index) override {
    Json choice = last(index);
    choice["logprobs"] = nullptr;
    choice["finish_reason"] = reason_of(state.choices[index]);
    choice["stop_reason"] = stop_of(*state.choices[index].end);
    return event(state, choice, nullptr, timings(*state.choices[index].end));
  }
  std::string finish(const AnswerState& state) override {
    std::string frames;
    if (include_usage_) frames = event(state, nullptr, usage(state));
    return frames + event_frame("[DONE]");
  }
  std::string failure(const std::string& error_body) override { return event_frame(error_body); }
  Json whole(const AnswerState& state) override {
    Json body = head(state, false);
    body["choices"] = Json::array();
    for (size_t i = 0; i < state.choices.size(); ++i) {
      const AnswerChoice& choice = state.choices[i];
      Json one = whole_text(state, i);
      one["logprobs"] = top_logprobs_ < 0 ? Json(nullptr) : logprobs(state, i, choice.tokens);
      one["finish_reason"] = reason_of(choice);
      one["stop_reason"] = stop_of(*choice.end);
      body["choices"].push_back(std::move(one));
    }
    body["usage"] = usage(state);
    body["timings"] = timings(*state.choices.front().end);
    return body;
  }

 protected:
  virtual Json head(const AnswerState& state, bool of_stream) const = 0;
  virtual bool always_begins() const = 0;
  virtual std::string first_text(const AnswerState&, size_t) const { return {}; }
  virtual Json first(const AnswerState& state, size_t index, const std::string& text) const = 0;
  virtual Json part(const AnswerState& state, size_t index, const AnswerPiece& piece) const = 0;
  virtual Json last(size_t index) const = 0;
  virtual Json whole_text(const AnswerState& state, size_t index) const = 0;
  virtual Json logprobs(const AnswerState& state, size_t index, const std::vector<engine::TokenInfo>& tokens) = 0;

 private:
  Json with_logprobs(const AnswerState& state, size_t index, Json choice, const std::vector<engine::TokenInfo>& tokens) {
    choice["logprobs"] = tokens.empty() ? Json(nullptr) : logprobs(state, index, tokens);
    choice["finish_reason"] = nullptr;
    return choice;
  }
  std::string event(const AnswerState& state, const Json& choice, const Json& usage, const Json& timings = nullptr) const {
    Json event = head(state, true);
    event["choices"] = choice.is_null() ? Json::array() : Json::array({choice});
    if (include_usage_) event["usage"] = usage;
    if (!timings.is_null()) event["timings"] = timings;
    return event_frame(event);
  }
  static Json usage(const AnswerState& state) {
    const AnswerState::Usage usage = state.usage();
    return {{"prompt_tokens", usage.prompt},
            {"completion_tokens", usage.generated},
            {"total_tokens", usage.prompt + usage.generated},
            {"prompt_tokens_details", {{"cached_tokens", usage.cached}}}};
  }
  // llama.cpp's, which people read.
  static Json timings(const engine::ChoiceEnd& end) {
    const auto rate = [](int64_t count, double seconds) { return seconds > 0 ? static_cast<double>(count) / seconds : 0; };
    const int64_t read = end.prompt_tokens - end.cached_tokens;
    return {{"cache_n", end.cached_tokens},
            {"prompt_n", read},
            {"prompt_ms", 1000 * end.prompt_seconds},
            {"prompt_per_second", rate(read, end.prompt_seconds)},
            {"predicted_n", end.generated_tokens},
            {"predicted_ms", 1000 * end.decode_seconds},
            {"predicted_per_second", rate(end.generated_tokens - 1, end.decode_seconds)}};
  }
  int64_t top_logprobs_;
  bool include_usage_ = false;
};

class ChatFormat final : public OpenAiFormat {
 public:
  using OpenAiFormat::OpenAiFormat;

 private:
  Json head(const AnswerState& state, bool of_stream) const override {
    return {{"id", "chatcmpl-" + state.id},
            {"object", of_stream ? "chat.completion.chunk" : "chat.completion"},
            {"created", state.created},
            {"model", state.model->name},
            {"system_fingerprint", "frugal"}};
  }
  bool always_begins() const override { return true; }  // the role comes first and alone
  Json first(const AnswerState& state, size_t index, const std::string&) const override {
    const std::vector<AnswerItem>& items = state.choices[index].items;
    const bool calls = !items.empty() && items.front().kind == AnswerItem::Kind::call;  // then there is no text, as in a whole answer
    return {{"index", index}, {"delta", {{"role", "assistant"}, {"content", calls ? Json(nullptr) : Json("")}}}};
  }
  Json part(const AnswerState& state, size_t index, const AnswerPiece& piece) const override {
    const std::vector<AnswerItem>& items = state.choices[index].items;
    const AnswerItem& item = items[piece.item];
    Json delta = Json::object();
    if (item.kind == AnswerItem::Kind::text) {
      delta["content"] = piece.text;
    } else if (item.kind == AnswerItem::Kind::reasoning) {
      delta["reasoning"] = delta["reasoning_content"] = piece.text;  // vLLM's name and DeepSeek's
    } else {
      const auto before = std::ranges::count(items.begin(), items.begin() + static_cast<std::ptrdiff_t>(piece.item), AnswerItem::Kind::call, &AnswerItem::kind);
      Json call = piece.begins ? call_of(item) : Json{{"function", Json::object()}};
      call["index"] = before;
      call["function"]["arguments"] = piece.text;
      delta["tool_calls"] = Json::array({call});
    }
    return {{"index", index}, {"delta", delta}};
  }
  static Json call_of(const AnswerItem& item) { return {{"id", item.id}, {"type", "function"}, {"function", {{"name", item.name}, {"arguments", item.text}}}}; }
  Json last(size_t index) const override { return {{"index", index}, {"delta", Json::object()}}; }
  Json whole_text(const AnswerState& state, size_t index) const override {
    const AnswerChoice& choice = state.choices[index];
    Json message = {{"role", "assistant"}, {"content", choice.text()}};
    if (const std::string reasoning = choice.text(AnswerItem::Kind::reasoning); !reasoning.empty()) {
      message["reasoning"] = message["reasoning_content"] = reasoning;
    }
    if (choice.calls()) {
      if (message["content"] == "") message["content"] = nullptr;
      message["tool_calls"] = Json::array();
      for (const AnswerItem& item : choice.items) {
        if (item.kind == AnswerItem::Kind::call) message["tool_calls"].push_back(call_of(item));
      }
    }
    return {{"index", index}, {"message", message}};
  }
  Json logprobs(const AnswerState& state, size_t, const std::vector<engine::TokenInfo>& tokens) override {
    return {{"content", token_logprobs(state, tokens)}};
  }
};

class CompletionFormat final : public OpenAiFormat {
 public:
  // echo: the texts of the prompts, or none.
  CompletionFormat(const Json& body, int64_t top_logprobs, std::vector<std::string> echo) : OpenAiFormat(body, top_logprobs), echo_(std::move(echo)) {}

 private:
  Json head(const AnswerState& state, bool) const override {
    return {
        {"id", "cmpl-" + state.id}, {"object", "text_completion"}, {"created", state.created}, {"model", state.model->name}, {"system_fingerprint", "frugal"}};
  }
  bool always_begins() const override { return false; }
  std::string first_text(const AnswerState& state, size_t index) const override {
    return echo_.empty() ? "" : echo_[index / static_cast<size_t>(state.choices_per_prompt)];
  }
  Json first(const AnswerState&, size_t index, const std::string& text) const override { return {{"index", index}, {"text", text}}; }
  Json part(const AnswerState&, size_t index, const AnswerPiece& piece) const override { return {{"index", index}, {"text", piece.text}}; }
  Json last(size_t index) const override { return {{"index", index}, {"text", ""}}; }
  Json whole_text(const AnswerState& state, size_t index) const override {
    return {{"index", index}, {"text", first_text(state, index) + state.choices[index].text()}};
  }
  Json logprobs(const AnswerState& state, size_t index, const std::vector<engine::TokenInfo>& tokens) override {
    offsets_.resize(state.choices.size());
    Json texts = Json::array(), values = Json::array(), tops = Json::array(), offsets = Json::array();
    for (const engine::TokenInfo& token : tokens) {
      const std::string text = state.token_text(token.id);
      texts.push_back(text);
      values.push_back(logprob_value(token.logprob));
      offsets.push_back(offsets_[index]);
      offsets_[index] += characters(text);
      Json top = std::isnan(token.logprob) ? Json(nullptr) : Json::object();
      for (const auto& [id, logprob] : token.top) top[state.token_text(id)] = logprob_value(logprob);
      tops.push_back(std::move(top));
    }
    return {{"tokens", texts}, {"token_logprobs", values}, {"top_logprobs", tops}, {"text_offset", offsets}};
  }
  std::vector<std::string> echo_;
  std::vector<size_t> offsets_;  // of each choice's next token in its text, in characters
};

void refuse_fields(const Json& body, std::initializer_list<const char*> names, const char* whose) {
  for (const char* name : names) {
    if (body.contains(name) && !body[name].is_null()) throw ApiError(400, fmt::format("{} is of {}", name, whose), name);
  }
}

void chat(Call& call) {
  const Json body = call.body();
  const std::shared_ptr<ServedModel> model = call.service.model_of(body);
  refuse_fields(body, {"prompt", "echo"}, "/v1/completions; a conversation has messages");
  auto [request, reading] = read_chat(call, body, *model);
  request.top_logprobs = asked_logprobs(body);
  if (request.max_tokens == 0) throw ApiError(400, "max_tokens must be at least 1", "max_tokens");
  const int64_t logprobs = request.top_logprobs;
  TextAnswer::begin(call, model, {std::move(request)}, reading, flag(body, "stream", false), std::make_unique<ChatFormat>(body, logprobs));
}

// Special tokens in a text are those tokens: clients that apply a chat template themselves rely on it.
std::vector<std::vector<int32_t>> prompts_of(const Json& body, const ServedModel& model) {
  const text::Tokenizer& tokenizer = *model.loaded.tokenizer;
  const Json* const prompt = given(body, "prompt");
  if (!prompt) refuse("prompt", " is missing");
  std::vector<std::vector<int32_t>> prompts;
  read_texts(
      "prompt", *prompt, kMostPrompts,
      [&](const std::string& name, const std::string& text) {
        prompts.push_back(encode_within(name, model.context(), [&](size_t limit) { return tokenizer.encode(text, {.parse_special = true, .limit = limit}); }));
      },
      [&](const std::string&, const Json& ids) {
        prompts.emplace_back();
        for (const Json& id : ids) prompts.back().push_back(token_id("prompt", id, tokenizer.vocab_size()));
      });
  return prompts;
}

void complete(Call& call) {
  const Json body = call.body();
  const std::shared_ptr<ServedModel> model = call.service.model_of(body);
  const text::Tokenizer& tokenizer = *model->loaded.tokenizer;
  engine::Request request = read_request(body, *model);
  const bool echo = flag(body, "echo", false);
  if (const auto logprobs = body.find("logprobs"); logprobs != body.end() && !logprobs->is_null()) {
    if (!logprobs->is_number_integer() || *logprobs < 0 || *logprobs > 20) throw ApiError(400, "logprobs must be an integer in 0..20", "logprobs");
    request.top_logprobs = logprobs->get<int64_t>();
  }
  refuse_fields(body, {"messages", "top_logprobs", "tools"}, "/v1/chat/completions");
  if (request.max_tokens < 0) request.max_tokens = 16;
  if (request.max_tokens == 0 && !echo) throw ApiError(400, "max_tokens of 0 needs echo", "max_tokens");
  request.prompt_logprobs = echo && request.top_logprobs >= 0;
  request.grammar = structure_of(body, *model);
  request.scope = call.scope();
  std::vector<engine::Request> requests;
  std::vector<std::string> texts;
  for (std::vector<int32_t>& prompt : prompts_of(body, *model)) {
    requests.push_back(request);
    if (echo) texts.push_back(tokenizer.decode(prompt, /*skip_special=*/true));
    requests.back().prompt = std::move(prompt);
  }
  if (std::ssize(requests) * request.choices > static_cast<int64_t>(kMostPrompts)) {
    throw ApiError(400, fmt::format("prompts times n must be at most {}", kMostPrompts), "n");
  }
  TextAnswer::begin(call, model, std::move(requests), std::nullopt, flag(body, "stream", false),
                    std::make_unique<CompletionFormat>(body, request.top_logprobs, std::move(texts)));
}

}  // namespace

std::vector<Route> openai_routes() {
  return {{"POST", "/v1/chat/completions", chat, true},
          {"POST", "/chat/completions", chat, true},
          {"POST", "/v1/completions", complete, true},
          {"POST", "/completions", complete, true}};
}

}  // namespace frugal::serve
