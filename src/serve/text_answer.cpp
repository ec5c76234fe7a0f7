#include "serve/text_answer.h"

#include "text/tokenizer.h"

namespace frugal::serve {

class TextAnswer::PromptListener : public engine::Listener {
 public:
  PromptListener(std::shared_ptr<TextAnswer> answer, size_t first) : answer_(std::move(answer)), first_(first) {}
  void on_prompt(int64_t choice, std::vector<engine::TokenInfo> tokens) override {
    answer_->on_prompt(first_ + static_cast<size_t>(choice), std::move(tokens));
  }
  void on_piece(int64_t choice, engine::Piece piece) override { answer_->on_piece(first_ + static_cast<size_t>(choice), std::move(piece)); }
  void on_end(int64_t choice, const engine::ChoiceEnd& end) override { answer_->on_end(first_ + static_cast<size_t>(choice), end); }
  void on_error(const Error& error) override { answer_->on_error(error); }

 private:
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

std::string AnswerState::token_text(int32_t id) const { return model->loaded.tokenizer->piece(id); }

std::string event_frame(const Json& data, const std::string& name) {
  return (name.empty() ? "" : "event: " + name + "\n") + "data: " + (data.is_string() ? data.get<std::string>() : dump(data)) + "\n\n";
}

TextAnswer::TextAnswer(Call& call, ServedModel& model, int64_t choices_per_prompt, size_t prompts, bool stream, std::unique_ptr<AnswerFormat> format)
    : service_(call.service),
      model_(model),
      format_(std::move(format)),
      stream_(stream),
      error_shape_(call.error_shape),
      response_(call.response),
      events_(std::make_shared<EventStream>(call.response, format_->content_type())),
      begin_(service_.options().clock->seconds()),
      open_(prompts * static_cast<size_t>(choices_per_prompt)) {
  state_.id = new_id();
  state_.created = service_.options().clock->unix_time();
  state_.model = &model;
  state_.choices_per_prompt = choices_per_prompt;
  state_.choices.resize(open_);
}

void TextAnswer::begin(Call& call, ServedModel& model, std::vector<engine::Request> requests, bool stream, std::unique_ptr<AnswerFormat> format) {
  const int64_t choices = requests.front().choices;
  const std::shared_ptr<TextAnswer> answer(new TextAnswer(call, model, choices, requests.size(), stream, std::move(format)));
  std::vector<std::pair<engine::Request, std::shared_ptr<engine::Listener>>> all;
  for (size_t i = 0; i < requests.size(); ++i) {
    answer->state_.prompt_tokens += std::ssize(requests[i].prompt);
    all.emplace_back(std::move(requests[i]), std::make_shared<PromptListener>(answer, i * static_cast<size_t>(choices)));
  }
  const std::vector<uint64_t> ids = model.engine->submit(std::move(all));
  {
    const std::lock_guard lock(answer->mutex_);
    answer->requests_ = ids;
  }
  call.response->on_gone([&model, ids] {
    for (const uint64_t id : ids) model.engine->cancel(id);
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
  AnswerChoice& choice = state_.choices[index];
  choice.text += piece.text;
  if (stream_) {
    begin_choice(index, {});
    return send(format_->piece(state_, index, piece));
  }
  for (engine::TokenInfo& token : piece.tokens) choice.tokens.push_back(std::move(token));
}

void TextAnswer::on_end(size_t index, const engine::ChoiceEnd& end) {
  if (over_) return;
  state_.choices[index].end = end;
  service_.queue_time.add(end.queue_seconds);
  service_.time_to_first_token.add(end.queue_seconds + end.prompt_seconds);
  if (end.generated_tokens > 1) service_.inter_token.add(end.decode_seconds / static_cast<double>(end.generated_tokens - 1));
  service_.whole_request.add(service_.options().clock->seconds() - begin_);
  if (stream_) {
    begin_choice(index, {});
    send(format_->end(state_, index));
  }
  if (--open_ > 0 || over_) return;
  over_ = true;
  if (!stream_) return send_json(*response_, format_->whole(state_));
  send(format_->finish(state_));
  events_->finish();
}

void TextAnswer::on_error(const Error& error) {
  if (over_) return;
  over_ = true;
  HttpAnswer answer = answer_of(error, error_shape_);
  if (!events_->started()) return response_->send(std::move(answer));
  events_->send(format_->failure(answer.body));
  events_->finish();
}

void TextAnswer::cancel() {
  over_ = true;
  const std::lock_guard lock(mutex_);
  for (const uint64_t id : requests_) model_.engine->cancel(id);
}

}  // namespace frugal::serve
