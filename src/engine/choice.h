// One stream of answer tokens: from rows of logits to a token, to text, to the end. Knows nothing of batches; not thread-safe.
#pragma once

#include <optional>
#include <span>

#include "engine/request.h"
#include "engine/stop_matcher.h"
#include "nn/loader.h"
#include "text/tokenizer.h"

namespace frugal::engine {

class Choice {
 public:
  // `model` and `request` outlive it. Throws Error{invalid_input} for values that no sampler takes.
  Choice(const nn::LoadedModel& model, const Request& request, int64_t index);

  // Draws the next token from logits [vocabulary], which it changes; what it means is kept for piece() and ended(). Runs on any thread of
  // the team. Throws Error.
  int32_t next(std::span<float> logits);
  // Log-probabilities of prompt token `position` + 1 from the logits after `position`.
  void add_prompt_row(std::span<const float> logits, int64_t position);
  std::vector<TokenInfo> take_prompt();

  int32_t next_token = 0;  // what next() drew, for whoever keeps the tokens

  bool ended() const { return ended_; }
  Piece take_piece();  // since the last time
  ChoiceEnd& end() { return end_; }
  void finish(EndReason reason);  // from outside: the context is full, or cancelled

 private:
  void ban(std::span<float> logits);
  TokenInfo info(std::span<const float> logits, int32_t id) const;
  void accept(int32_t id);
  void follow_grammar(int32_t id);
  std::string text_of(int32_t id);

  const nn::LoadedModel& model_;
  const Request& request_;
  Sampler sampler_;
  text::StreamDecoder decoder_;
  StopMatcher matcher_;
  std::optional<text::GrammarMatcher> grammar_;
  bool grammar_waits_ = false;  // for grammar_after,
  std::string waited_;          // in this end of the text
  std::vector<TokenInfo> prompt_;
  Piece piece_;
  ChoiceEnd end_;
  bool ended_ = false;
};

}  // namespace frugal::engine
