#include "serve/text_answer.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "text/tokenizer.h"

namespace frugal::serve {

// What of one prompt the engine says. Nothing is thrown back at it.
class TextAnswer::PromptListener : public engine::Listener {
 public:
  PromptListener(std::shared_ptr<TextAnswer> answer, size_t first) : answer_(std::move(answer)), first_(first) {}
  void on_prompt(int64_t choice, std::vector<engine::TokenInfo> tokens) override {
    guarded([&] { answer_->on_prompt(first_ + static_cast<size_t>(choice), std::move(tokens)); });
  }
  void on_piece(int64_t choice, engine::Piece piece) override {
    guarded([&] { answer_->on_piece(first_ + static_cast<size_t>(choice), std::move(piece)); });
  }
  void on_end(int64_t choice, const engine::ChoiceEnd& end) override {
    guarded([&] { answer_->on_end(first_ + static_cast<size_t>(choice), end); });
  }
  void on_error(const Error& error) override {
    guarded([&] { answer_->fail(error); });
  }

 private:
  template <typename Body>
  void guarded(const Body& body) {
    try {
      body();
    } catch (const std::exception& error) {
      try {
        answer_->fail(error);
      } catch (...) {  // without memory even for that: the client sees a cut answer when it is let go
      }
    }
  }
  std::shared_ptr<TextAnswer> answer_;
  size_t first_;
};

AnswerState::Usage AnswerState::usage() const {
  Usage usage;
  for (size_t i = 0; i < choices.size(); ++i) {
    if (!choices[i].end) continue;
    const engine::ChoiceEnd& end = *choices[i].end;
    usage.generated += end.generated_tokens;
    if (i % static_cast<size_t>(choices_per_prompt) > 0) continue;
    usage.prompt += end.prompt_tokens;
    usage.cached += end.cached_tokens;
  }
  return usage;
}

std::string AnswerChoice::text(AnswerItem::Kind kind) const {
  std::string all;
  for (const AnswerItem& item : items) {
    if (item.kind == kind) all += item.text;
  }
  return all;
}

bool AnswerChoice::calls() const {
  return std::ranges::any_of(items, [](const AnswerItem& item) { return item.kind == AnswerItem::Kind::call; });
}

std::string AnswerState::token_text(int32_t id) const { return model->loaded.tokenizer->piece(id); }

Json logprob_value(double logprob) {
  constexpr double kLeast = -9999;
  return std::isnan(logprob) ? Json(nullptr) : Json(std::max(logprob, kLeast));
}

Json token_logprobs(const AnswerState& state, const std::vector<engine::TokenInfo>& tokens) {
  const auto entry = [&](int32_t id, double logprob) {
    const std::string text = state.token_text(id);
    std::vector<int> bytes;
    for (const char c : text) bytes.push_back(static_cast<unsigned char>(c));
    return Json{{"token", text}, {"logprob", logprob_value(logprob)}, {"bytes", bytes}};
  };
  Json list = Json::array();
  for (const engine::TokenInfo& token : tokens) {
    Json one = entry(token.id, token.logprob);
    one["top_logprobs"] = Json::array();
    for (const auto& [id, logprob] : token.top) one["top_logprobs"].push_back(entry(id, logprob));
    list.push_back(std::move(one));
  }
  return list;
}

std::string event_frame(const Json& data, const std::string& name) {
  return (name.empty() ? "" : "event: " + name + "\n") + "data: " + (data.is_string() ? data.get<std::string>() : dump(data)) + "\n\n";
}

TextAnswer::TextAnswer(Call& call, std::shared_ptr<ServedModel> model, int64_t choices_per_prompt, size_t prompts, bool stream,
                       std::unique_ptr<AnswerFormat> format)
    : service_(call.service),
      model_(std::move(model)),
      format_(std::move(format)),
      stream_(stream),
      error_shape_(call.error_shape),
      response_(call.response),
      events_(std::make_shared<EventStream>(call.response, format_->content_type())),
      begin_(service_.options().clock->seconds()),
      open_(prompts * static_cast<size_t>(choices_per_prompt)) {
  state_.id = new_id();
  state_.created = service_.options().clock->unix_time();
  state_.model = model_.get();
  state_.choices_per_prompt = choices_per_prompt;
  state_.choices.resize(open_);
}

namespace {

// Log-probabilities of a request stay in memory until it ends, and become a hundred bytes each in its answer.
constexpr int64_t kMostLogprobs = 500'000;

void check_budget(const std::vector<engine::Request>& requests, int64_t context) {
  int64_t count = 0;
  for (const engine::Request& request : requests) {
    if (request.top_logprobs < 0) continue;
    const int64_t most = request.max_tokens < 0 ? context : std::min(request.max_tokens, context);
    count += request.choices * (most + (request.prompt_logprobs ? std::ssize(request.prompt) : 0)) * (1 + request.top_logprobs);
  }
  if (count <= kMostLogprobs) return;
  throw ApiError(
      400, fmt::format("logprobs of all tokens that may come are up to {} numbers, {} are allowed: ask for fewer, or set max_tokens", count, kMostLogprobs),
      "logprobs");
}

}  // namespace

void TextAnswer::begin(Call& call, std::shared_ptr<ServedModel> model, std::vector<engine::Request> requests,
                       const std::optional<text::AnswerParserOptions>& reading, bool stream, std::unique_ptr<AnswerFormat> format) {
  const int64_t choices = requests.front().choices;
  check_budget(requests, model->engine->context());
  const std::shared_ptr<TextAnswer> answer(new TextAnswer(call, model, choices, requests.size(), stream, std::move(format)));
  if (reading) answer->parsers_.assign(answer->open_, text::AnswerParser(*reading));
  std::vector<std::pair<engine::Request, std::shared_ptr<engine::Listener>>> all;
  for (size_t i = 0; i < requests.size(); ++i) {
    answer->state_.prompt_tokens += std::ssize(requests[i].prompt);
    all.emplace_back(std::move(requests[i]), std::make_shared<PromptListener>(answer, i * static_cast<size_t>(choices)));
  }
  if (stream) call.service.keep_alive(answer->events_);
  const std::vector<uint64_t> ids = model->engine->submit(std::move(all));
  {
    const std::lock_guard lock(answer->mutex_);
    answer->requests_ = ids;
  }
  if (answer->over_) answer->cancel();  // it failed before their numbers were known
  call.response->on_gone([model, ids] {
    for (const uint64_t id : ids) model->engine->cancel(id);
  });
}

void TextAnswer::send(const std::string& frames) {
  if (!frames.empty() && !events_->send(frames)) cancel();
}

void TextAnswer::begin_choice(size_t index, const std::vector<engine::TokenInfo>& prompt) {
  if (std::exchange(state_.choices[index].begun, true)) return;
  send(format_->begin(state_, index, prompt));
}

void TextAnswer::on_prompt(size_t index, std::vector<engine::TokenInfo> tokens) {
  if (over_) return;
  if (stream_)
    begin_choice(index, tokens);
  else
    state_.choices[index].tokens = std::move(tokens);
}

void TextAnswer::on_piece(size_t index, engine::Piece piece) {
  if (over_) return;
  std::ranges::move(piece.tokens, std::back_inserter(state_.choices[index].held));
  add(index, parsers_.empty() ? text::AnswerDelta{.content = std::move(piece.text), .reasoning = {}, .calls = {}} : parsers_[index].push(piece.text));
}

void TextAnswer::add(size_t index, const text::AnswerDelta& delta) {
  using enum AnswerItem::Kind;
  if (!delta.reasoning.empty()) add(index, reasoning, delta.reasoning);
  if (!delta.content.empty()) add(index, text, delta.content);
  for (const text::CallDelta& call : delta.calls) add(index, AnswerItem::Kind::call, call.arguments, call.name);
}

void TextAnswer::add(size_t index, AnswerItem::Kind kind, const std::string& text, const std::string& name) {
  AnswerChoice& choice = state_.choices[index];
  const bool begins = choice.items.empty() || choice.items.back().kind != kind || !name.empty();
  if (begins) choice.items.push_back({kind, {}, name, name.empty() ? "" : "call_" + new_id()});
  choice.items.back().text += text;
  std::vector<engine::TokenInfo> tokens = std::exchange(choice.held, {});
  if (!stream_) return (void)std::ranges::move(tokens, std::back_inserter(choice.tokens));
  begin_choice(index, {});
  send(format_->piece(state_, index, {choice.items.size() - 1, begins, text, std::move(tokens)}));
}

void TextAnswer::on_end(size_t index, const engine::ChoiceEnd& end) {
  if (over_) return;
  if (!parsers_.empty()) add(index, parsers_[index].finish());
  if (!state_.choices[index].held.empty()) add(index, AnswerItem::Kind::text, {});
  state_.choices[index].end = end;
  if (end.generated_tokens > 0) {
    service_.queue_time.add(end.queue_seconds);
    service_.time_to_first_token.add(end.queue_seconds + end.prompt_seconds);
  }
  if (end.generated_tokens > 1) service_.inter_token.add(end.decode_seconds / static_cast<double>(end.generated_tokens - 1));
  service_.whole_request.add(service_.options().clock->seconds() - begin_);
  if (stream_) {
    begin_choice(index, {});
    send(format_->end(state_, index));
  }
  if (--open_ > 0 || over_) return;
  over_ = true;
  if (!stream_) {  // may be long with log-probabilities: not on the engine's thread
    return service_.post([self = shared_from_this()] {
      try {
        send_json(*self->response_, self->format_->whole(self->state_));
      } catch (const std::exception& error) {
        self->response_->send(answer_of(error, self->error_shape_));
      }
    });
  }
  send(format_->finish(state_));
  events_->finish();
}

void TextAnswer::fail(const std::exception& error) {
  if (over_) return;
  cancel();
  HttpAnswer answer = answer_of(error, error_shape_);
  const std::string body = answer.body;
  if (events_->answer_instead(std::move(answer))) return;
  events_->send(format_->failure(body));
  events_->finish();
}

void TextAnswer::cancel() {
  over_ = true;
  const std::lock_guard lock(mutex_);
  for (const uint64_t id : requests_) model_->engine->cancel(id);
}

}  // namespace frugal::serve
