// The answer to a request for text, whole or as it comes, in any protocol: an AnswerFormat says how one protocol writes it.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "serve/event_stream.h"
#include "serve/service.h"

namespace frugal::serve {

struct AnswerChoice {
  std::string text;
  std::vector<engine::TokenInfo> tokens;  // with log-probabilities: of the prompt, if they were asked for, then of the answer
  std::optional<engine::ChoiceEnd> end;
  bool begun = false;  // in a stream
};

// What there is so far.
struct AnswerState {
  std::string id;  // random hexadecimal digits
  int64_t created = 0;
  const ServedModel* model = nullptr;
  int64_t prompt_tokens = 0;  // of all prompts
  int64_t choices_per_prompt = 1;
  std::vector<AnswerChoice> choices;  // of the first prompt, then of the second ...

  struct Usage {
    int64_t prompt = 0, cached = 0, generated = 0;
  };
  Usage usage() const;
  std::string token_text(int32_t id) const;
};

// All functions run on the engine's thread; the frames of a stream are sent as they are returned.
class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;
  virtual const char* content_type() const { return "text/event-stream; charset=utf-8"; }
  // For each choice: once, before its first text, with the tokens of the prompt where they were asked for; then for each piece; at its end.
  virtual std::string begin(const AnswerState& state, size_t choice, const std::vector<engine::TokenInfo>& prompt) = 0;
  virtual std::string piece(const AnswerState& state, size_t choice, const engine::Piece& piece) = 0;
  virtual std::string end(const AnswerState& state, size_t choice) = 0;
  virtual std::string finish(const AnswerState& state) = 0;        // after all
  virtual std::string failure(const std::string& error_body) = 0;  // instead of the rest
  virtual Json whole(const AnswerState& state) = 0;
};

// "data: ...\n\n", with "event: ..." before it where a name is given.
std::string event_frame(const Json& data, const std::string& name = {});

class TextAnswer : public std::enable_shared_from_this<TextAnswer> {
 public:
  // All requests, one for each prompt, on their way, or none of them: throws. Nothing is sent before the first token.
  static void begin(Call& call, ServedModel& model, std::vector<engine::Request> requests, bool stream, std::unique_ptr<AnswerFormat> format);

 private:
  class PromptListener;
  TextAnswer(Call& call, ServedModel& model, int64_t choices_per_prompt, size_t prompts, bool stream, std::unique_ptr<AnswerFormat> format);

  void on_prompt(size_t choice, std::vector<engine::TokenInfo> tokens);
  void on_piece(size_t choice, engine::Piece piece);
  void on_end(size_t choice, const engine::ChoiceEnd& end);
  void fail(const std::exception& error);
  void begin_choice(size_t choice, const std::vector<engine::TokenInfo>& prompt);
  void send(const std::string& frames);
  void cancel();

  Service& service_;
  ServedModel& model_;
  std::unique_ptr<AnswerFormat> format_;
  bool stream_;
  ErrorShape error_shape_;
  std::shared_ptr<HttpResponse> response_;
  std::shared_ptr<EventStream> events_;
  double begin_;
  AnswerState state_;
  size_t open_;
  std::atomic<bool> over_ = false;
  std::mutex mutex_;
  std::vector<uint64_t> requests_;  // under it: the engine may answer before it has said their numbers
};

}  // namespace frugal::serve
