// The answer to a request for text, as OpenAI's two endpoints write it: whole, or in events as it comes. Hears the engine of one model, on
// its thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "serve/event_stream.h"
#include "serve/service.h"

namespace frugal::serve {

struct TextForm {
  bool chat = false;
  bool stream = false, include_usage = false;
  bool echo = false;
  int64_t top_logprobs = -1;
  std::vector<std::string> prompts;  // with echo: their texts
};

class TextAnswer : public std::enable_shared_from_this<TextAnswer> {
 public:
  // All requests, one for each prompt, on their way, or none of them: throws. Nothing is sent before the first token.
  static void begin(Call& call, ServedModel& model, std::vector<engine::Request> requests, TextForm form);

 private:
  struct Choice {
    std::string text;
    std::vector<engine::TokenInfo> tokens;
    std::optional<engine::ChoiceEnd> end;
    bool begun = false;
    size_t offset = 0;  // of the next token in the text, in characters
  };
  class PromptListener;
  TextAnswer(Call& call, ServedModel& model, TextForm form, int64_t choices_per_prompt, size_t prompts);

  const std::string& prompt_of(size_t choice) const;
  void begin_stream(size_t choice);
  void on_prompt(size_t choice, std::vector<engine::TokenInfo> tokens);
  void on_piece(size_t choice, engine::Piece piece);
  void on_end(size_t choice, const engine::ChoiceEnd& end);
  void on_error(const Error& error);
  void cancel();

  Json head() const;
  Json chunk(size_t choice, const std::string& text, const std::vector<engine::TokenInfo>& tokens, const Json& finish_reason);
  Json logprobs(Choice& choice, const std::vector<engine::TokenInfo>& tokens) const;
  Json usage() const;
  void send(const Json& event);
  void send_whole();
  std::string text_of(int32_t id) const { return model_.loaded.tokenizer->piece(id); }

  Service& service_;
  ServedModel& model_;
  TextForm form_;
  std::shared_ptr<HttpResponse> response_;
  std::shared_ptr<EventStream> events_;
  std::string id_;
  int64_t created_;
  double begin_;
  int64_t choices_per_prompt_;
  std::vector<Choice> choices_;
  std::mutex mutex_;
  std::vector<uint64_t> requests_;  // under it: the engine may answer before it has said their numbers
  size_t open_;
  bool over_ = false;
};

}  // namespace frugal::serve
