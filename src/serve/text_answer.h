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
#include "text/answer_parser.h"

namespace frugal::serve {

// What an answer consists of, in this order: reasoning, text, calls of tools.
struct AnswerItem {
  enum class Kind { reasoning, text, call };  // a call begins with its name
  Kind kind = Kind::text;
  std::string text;      // of a call: its arguments, JSON
  std::string name, id;  // of a call
};

struct AnswerChoice {
  std::vector<AnswerItem> items;
  std::string text(AnswerItem::Kind kind = AnswerItem::Kind::text) const;  // of all items of this kind
  bool calls() const;                                                      // any
  std::vector<engine::TokenInfo> tokens;                                   // with log-probabilities: of the prompt, if they were asked for, then of the answer
  std::vector<engine::TokenInfo> held;                                     // behind text that has not come yet
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

// More of an item, and the tokens behind it.
struct AnswerPiece {
  size_t item = 0;
  bool begins = false;  // the item
  std::string text;
  std::vector<engine::TokenInfo> tokens;
};

Json logprob_value(double logprob);  // null for none; JSON has no infinity
// As a chat has them: token, logprob, bytes, and in top_logprobs the likeliest.
Json token_logprobs(const AnswerState& state, const std::vector<engine::TokenInfo>& tokens);

// All functions run on the engine's thread; the frames of a stream are sent as they are returned.
class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;
  virtual const char* content_type() const { return "text/event-stream; charset=utf-8"; }
  // For each choice: once, before its first text, with the tokens of the prompt where they were asked for; then for each piece; at its end.
  virtual std::string begin(const AnswerState& state, size_t choice, const std::vector<engine::TokenInfo>& prompt) = 0;
  virtual std::string piece(const AnswerState& state, size_t choice, const AnswerPiece& piece) = 0;
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
  static void begin(Call& call, std::shared_ptr<ServedModel> model, std::vector<engine::Request> requests,
                    const std::optional<text::AnswerParserOptions>& reading, bool stream, std::unique_ptr<AnswerFormat> format);

 private:
  class PromptListener;
  TextAnswer(Call& call, std::shared_ptr<ServedModel> model, int64_t choices_per_prompt, size_t prompts, bool stream, std::unique_ptr<AnswerFormat> format);

  void on_prompt(size_t choice, std::vector<engine::TokenInfo> tokens);
  void on_piece(size_t choice, engine::Piece piece);
  void add(size_t choice, const text::AnswerDelta& delta);
  void add(size_t choice, AnswerItem::Kind kind, const std::string& text, const std::string& name = {});
  void on_end(size_t choice, const engine::ChoiceEnd& end);
  void fail(const std::exception& error);
  void begin_choice(size_t choice, const std::vector<engine::TokenInfo>& prompt);
  void send(const std::string& frames);
  void cancel();

  Service& service_;
  std::shared_ptr<ServedModel> model_;
  std::unique_ptr<AnswerFormat> format_;
  bool stream_;
  ErrorShape error_shape_;
  std::shared_ptr<HttpResponse> response_;
  std::shared_ptr<EventStream> events_;
  double begin_;
  AnswerState state_;
  std::vector<text::AnswerParser> parsers_;  // of each choice, or none
  size_t open_;
  std::atomic<bool> over_ = false;
  std::mutex mutex_;
  std::vector<uint64_t> requests_;  // under it: the engine may answer before it has said their numbers
};

}  // namespace frugal::serve
