#include "serve/text_answer.h"

#include <algorithm>
#include <cmath>

#include "text/tokenizer.h"

namespace frugal::serve {
namespace {

constexpr double kLeastLogprob = -9999;  // JSON has no infinity

Json number(double logprob) { return std::isnan(logprob) ? Json(nullptr) : Json(std::max(logprob, kLeastLogprob)); }

size_t characters(std::string_view text) {
  size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return count;
}

std::string reason_of(const engine::ChoiceEnd& end) {
  switch (end.reason) {
    case engine::EndReason::stop: return "stop";
    case engine::EndReason::length: return "length";
    case engine::EndReason::cancelled: break;
  }
  return "abort";
}

int status_of(const Error& error) { return error.kind() == ErrorKind::invalid_input ? 400 : error.kind() == ErrorKind::out_of_memory ? 503 : 500; }

}  // namespace

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

TextAnswer::TextAnswer(Call& call, ServedModel& model, TextForm form, int64_t choices_per_prompt, size_t prompts)
    : service_(call.service),
      model_(model),
      form_(std::move(form)),
      response_(call.response),
      events_(std::make_shared<EventStream>(call.response)),
      id_(new_id(form_.chat ? "chatcmpl-" : "cmpl-")),
      created_(service_.options().clock->unix_time()),
      begin_(service_.options().clock->seconds()),
      choices_per_prompt_(choices_per_prompt),
      choices_(prompts * static_cast<size_t>(choices_per_prompt)),
      open_(choices_.size()) {}

void TextAnswer::begin(Call& call, ServedModel& model, std::vector<engine::Request> requests, TextForm form) {
  const int64_t choices = requests.front().choices;
  const std::shared_ptr<TextAnswer> answer(new TextAnswer(call, model, std::move(form), choices, requests.size()));
  std::vector<std::pair<engine::Request, std::shared_ptr<engine::Listener>>> all;
  for (size_t i = 0; i < requests.size(); ++i) {
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

Json TextAnswer::head() const {
  const char* object = form_.chat ? (form_.stream ? "chat.completion.chunk" : "chat.completion") : "text_completion";
  return {{"id", id_}, {"object", object}, {"created", created_}, {"model", model_.name}, {"system_fingerprint", "frugal"}};
}

Json TextAnswer::logprobs(Choice& choice, const std::vector<engine::TokenInfo>& tokens) const {
  if (form_.top_logprobs < 0) return nullptr;
  if (form_.chat) {
    const auto entry = [&](int32_t id, double logprob) {
      const std::string text = text_of(id);
      std::vector<int> bytes;
      for (const char c : text) bytes.push_back(static_cast<unsigned char>(c));
      return Json{{"token", text}, {"logprob", number(logprob)}, {"bytes", bytes}};
    };
    Json content = Json::array();
    for (const engine::TokenInfo& token : tokens) {
      Json one = entry(token.id, token.logprob);
      one["top_logprobs"] = Json::array();
      for (const auto& [id, logprob] : token.top) one["top_logprobs"].push_back(entry(id, logprob));
      content.push_back(std::move(one));
    }
    return {{"content", content}};
  }
  Json texts = Json::array(), values = Json::array(), tops = Json::array(), offsets = Json::array();
  for (const engine::TokenInfo& token : tokens) {
    const std::string text = text_of(token.id);
    texts.push_back(text);
    values.push_back(number(token.logprob));
    offsets.push_back(choice.offset);
    choice.offset += characters(text);
    if (std::isnan(token.logprob)) {
      tops.push_back(nullptr);
      continue;
    }
    Json top = Json::object();
    for (const auto& [id, logprob] : token.top) top[text_of(id)] = number(logprob);
    tops.push_back(std::move(top));
  }
  return {{"tokens", texts}, {"token_logprobs", values}, {"top_logprobs", tops}, {"text_offset", offsets}};
}

Json TextAnswer::chunk(size_t index, const std::string& text, const std::vector<engine::TokenInfo>& tokens, const Json& finish_reason) {
  Choice& choice = choices_[index];
  Json part = {{"index", index}};
  if (form_.chat) {
    Json delta = Json::object();
    if (!choice.begun) delta["role"] = "assistant";
    if (finish_reason.is_null()) delta["content"] = text;
    part["delta"] = std::move(delta);
  } else {
    part["text"] = text;
  }
  part["logprobs"] = tokens.empty() ? Json(nullptr) : logprobs(choice, tokens);
  part["finish_reason"] = finish_reason;
  if (!finish_reason.is_null()) {
    const engine::ChoiceEnd& end = *choice.end;
    part["stop_reason"] = end.stop_id >= 0 ? Json(end.stop_id) : end.stop_text.empty() ? Json(nullptr) : Json(end.stop_text);
  }
  Json event = head();
  event["choices"] = Json::array({std::move(part)});
  if (form_.include_usage) event["usage"] = nullptr;
  return event;
}

void TextAnswer::send(const Json& event) {
  if (!events_->send(dump(event))) cancel();
}

const std::string& TextAnswer::prompt_of(size_t index) const { return form_.prompts[index / static_cast<size_t>(choices_per_prompt_)]; }

void TextAnswer::on_prompt(size_t index, std::vector<engine::TokenInfo> tokens) {
  if (over_) return;
  Choice& choice = choices_[index];
  if (!form_.stream) {
    choice.tokens = std::move(tokens);
    return;
  }
  choice.begun = true;
  send(chunk(index, prompt_of(index), tokens, nullptr));
}

// The role of a conversation's answer, or an echo, comes first and alone.
void TextAnswer::begin_stream(size_t index) {
  Choice& choice = choices_[index];
  if (choice.begun) return;
  if (form_.chat || form_.echo) send(chunk(index, form_.echo ? prompt_of(index) : "", {}, nullptr));
  choice.begun = true;
}

void TextAnswer::on_piece(size_t index, engine::Piece piece) {
  if (over_) return;
  Choice& choice = choices_[index];
  if (form_.stream) {
    begin_stream(index);
    return send(chunk(index, piece.text, piece.tokens, nullptr));
  }
  choice.text += piece.text;
  for (engine::TokenInfo& token : piece.tokens) choice.tokens.push_back(std::move(token));
}

void TextAnswer::on_end(size_t index, const engine::ChoiceEnd& end) {
  if (over_) return;
  choices_[index].end = end;
  service_.queue_time.add(end.queue_seconds);
  service_.time_to_first_token.add(end.queue_seconds + end.prompt_seconds);
  if (end.generated_tokens > 1) service_.inter_token.add(end.decode_seconds / static_cast<double>(end.generated_tokens - 1));
  service_.whole_request.add(service_.options().clock->seconds() - begin_);
  if (form_.stream) {
    begin_stream(index);
    send(chunk(index, "", {}, reason_of(end)));
  }
  if (--open_ > 0) return;
  over_ = true;
  if (!form_.stream) return send_whole();
  if (form_.include_usage) {
    Json last = head();
    last["choices"] = Json::array();
    last["usage"] = usage();
    send(last);
  }
  events_->send("[DONE]");
  events_->finish();
}

void TextAnswer::on_error(const Error& error) {
  if (over_) return;
  over_ = true;
  const int status = status_of(error);
  HttpAnswer answer = error_answer(status, status == 500 ? "internal error" : error.what());
  const bool begun = form_.stream && std::ranges::any_of(choices_, [](const Choice& choice) { return choice.begun || choice.end; });
  if (!begun) return response_->send(std::move(answer));
  events_->send(answer.body);
  events_->finish();
}

void TextAnswer::cancel() {
  over_ = true;
  const std::lock_guard lock(mutex_);
  for (const uint64_t id : requests_) model_.engine->cancel(id);
}

Json TextAnswer::usage() const {
  int64_t prompt = 0, cached = 0, generated = 0;
  for (size_t i = 0; i < choices_.size(); ++i) {
    const engine::ChoiceEnd& end = *choices_[i].end;
    generated += end.generated_tokens;
    if (i % static_cast<size_t>(choices_per_prompt_) > 0) continue;
    prompt += end.prompt_tokens;
    cached += end.cached_tokens;
  }
  return {{"prompt_tokens", prompt},
          {"completion_tokens", generated},
          {"total_tokens", prompt + generated},
          {"prompt_tokens_details", {{"cached_tokens", cached}}}};
}

void TextAnswer::send_whole() {
  Json body = head();
  body["choices"] = Json::array();
  for (size_t i = 0; i < choices_.size(); ++i) {
    Choice& choice = choices_[i];
    Json one = {{"index", i}};
    if (form_.chat)
      one["message"] = {{"role", "assistant"}, {"content", choice.text}};
    else
      one["text"] = (form_.echo ? prompt_of(i) : "") + choice.text;
    one["logprobs"] = logprobs(choice, choice.tokens);
    one["finish_reason"] = reason_of(*choice.end);
    one["stop_reason"] = choice.end->stop_id >= 0 ? Json(choice.end->stop_id) : choice.end->stop_text.empty() ? Json(nullptr) : Json(choice.end->stop_text);
    body["choices"].push_back(std::move(one));
  }
  body["usage"] = usage();
  const engine::ChoiceEnd& first = *choices_.front().end;
  const auto rate = [](int64_t count, double seconds) { return seconds > 0 ? static_cast<double>(count) / seconds : 0; };
  const int64_t read = first.prompt_tokens - first.cached_tokens;
  body["timings"] = {{"cache_n", first.cached_tokens},
                     {"prompt_n", read},
                     {"prompt_ms", 1000 * first.prompt_seconds},
                     {"prompt_per_second", rate(read, first.prompt_seconds)},
                     {"predicted_n", first.generated_tokens},
                     {"predicted_ms", 1000 * first.decode_seconds},
                     {"predicted_per_second", rate(first.generated_tokens - 1, first.decode_seconds)}};
  send_json(*response_, body);
}

}  // namespace frugal::serve
