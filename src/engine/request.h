// What a client asks the engine for, and what it hears.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "engine/sampler.h"
#include "text/grammar/matcher.h"

namespace frugal::engine {

struct Request {
  std::vector<int32_t> prompt;
  SamplingParams sampling;  // with a seed, choice i draws with seed + i
  int64_t choices = 1;
  int64_t max_tokens = -1;  // generated; -1: until the end or the context is full. 0: the prompt's log-probabilities only
  int64_t min_tokens = 0;   // before that many, no end token is drawn
  std::vector<std::string> stop;
  std::vector<int32_t> stop_ids;  // besides the model's end tokens
  bool include_stop = false;      // the text keeps the stop string
  bool ignore_end = false;        // end tokens are tokens like others
  bool show_special = false;      // special tokens as text;
  std::vector<int32_t> shown;     // these always
  int64_t top_logprobs = -1;      // -1: no log-probabilities; else the token's own and so many of the likeliest
  bool prompt_logprobs = false;   // those of the prompt as well
  std::string scope;              // of cached beginnings
  // What the answer must be, at its beginning; each choice follows a copy of its own. Null: anything.
  std::shared_ptr<const text::GrammarMatcher> grammar;
  std::string grammar_after;  // it begins behind this text, such as the end of the reasoning, which must come; empty: at once
};

// Log-probabilities are the model's: before bias, penalties and temperature, in nats.
struct TokenInfo {
  int32_t id = 0;
  double logprob = 0;  // NaN: the first token of a prompt
  std::vector<std::pair<int32_t, double>> top;
};

// Text that is certain, and the tokens behind it (with log-probabilities, where they were asked for). Either may be empty.
struct Piece {
  std::string text;
  std::vector<TokenInfo> tokens;
};

enum class EndReason { stop, length, cancelled };

struct ChoiceEnd {
  EndReason reason = EndReason::stop;
  std::string stop_text;  // the stop string or the text of the token that ended it; empty for the model's own end
  int32_t stop_id = -1;   // of stop_ids
  int64_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
  double queue_seconds = 0, prompt_seconds = 0, decode_seconds = 0;  // until it first ran; until the first token; the rest
};

// Called on the engine's thread, in order, between submit() and the last on_end or on_error: returns at once and does not throw.
class Listener {
 public:
  virtual ~Listener() = default;
  virtual void on_prompt(int64_t choice, std::vector<TokenInfo> tokens) { (void)choice, (void)tokens; }  // with prompt_logprobs
  virtual void on_piece(int64_t choice, Piece piece) = 0;
  virtual void on_end(int64_t choice, const ChoiceEnd& end) = 0;
  virtual void on_error(const Error& error) = 0;  // the whole request: no other choice is heard of again
};

}  // namespace frugal::engine
