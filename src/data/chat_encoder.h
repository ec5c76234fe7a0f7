// A conversation as tokens, with the ones marked that are learned: what the assistant says, as the model's own chat template
// writes it.
//
// The whole text is tokenized as serving tokenizes a prompt (text/chat_tokens.h), and a token is learned when it overlaps a span of
// the assistant. These are the ids and, where the template marks the spans with {% generation %}, the mask of transformers'
// apply_chat_template(tokenize=True, return_assistant_tokens_mask=True). Tokenizing piece by piece at the borders of spans, as
// LLaMA-Factory does, gives the same ids for most rows and others where a token lies across a border ("\n" of the header and "\n" of
// the answer): transformers has one token there, and in a long conversation serving has it too, from the second turn on.
//
// A template without the tag is rendered up to each answer and after it (span_finder.h). Where these renderings do not tell where
// the answer lies, the row is refused, never guessed.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/json.h"
#include "data/row.h"
#include "data/span_finder.h"
#include "text/chat_template.h"
#include "text/chat_tokens.h"
#include "text/tokenizer.h"

namespace frugal::data {

// The model's side: how texts and conversations become its tokens. What is pointed to must outlive the user.
struct TextModel {
  const text::Tokenizer* tokenizer = nullptr;
  const text::ChatTemplate* chat_template = nullptr;  // null: rows of text only
  std::string chat_template_problem = {};             // why there is none, for the message
  std::string bos_text = {}, eos_text = {};           // as the chat template wants them
  Json template_arguments = {};                       // chat_template_kwargs, or null
  // For templates that write the date: the tokens, and so the fingerprint, follow this clock. A run that is to be resumed on another
  // day gives one that stands still. Null: the system's.
  const Clock* clock = nullptr;
};

// Which ends of turns are learned: a token that ends an answer in serving (SpecialTokens::end_of_generation).
enum class TrainOnEos {
  turn,  // those of the turns that are learned, also where {% generation %} leaves them out
  all,   // every turn's
  last,  // the last learned turn's
  none
};
TrainOnEos train_on_eos(std::string_view name);  // Throws Error{invalid_input} that lists the names.

struct MaskOptions {
  std::set<std::string> roles_to_train = {"assistant"};  // of another role its contents are learned, not its header
  TrainOnEos train_on_eos = TrainOnEos::turn;
  bool train_on_inputs = false;  // everything is learned
};

struct Sequence {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> trained;  // 1: a target; never the first token, which nothing predicts
  bool cut = false;              // there were more
};

// Immutable and thread-safe.
class ChatEncoder {
 public:
  ChatEncoder(const TextModel& model, MaskOptions options);

  // Null when there are more than max_tokens and `truncate` is not set; else the first of them. Throws Error{invalid_input} when the
  // template refuses the messages, or does not tell where an answer lies.
  std::optional<Sequence> encode(const Conversation& conversation, size_t max_tokens = SIZE_MAX, bool truncate = false) const;

 private:
  struct Whole;
  Whole whole_of(const std::vector<text::RenderedSegment>& segments, std::span<const int32_t> tokens, const std::vector<text::EncodedPart>& parts,
                 size_t max_tokens) const;
  std::vector<ByteSpan> found_spans(const Json& messages, size_t first, text::RenderOptions options, const Whole& whole) const;

  TextModel model_;
  MaskOptions options_;
  text::SegmentEncoder encoder_;
  std::vector<bool> ends_turn_;  // by id
  bool marks_generation_ = false, native_tools_ = true;
};

}  // namespace frugal::data
