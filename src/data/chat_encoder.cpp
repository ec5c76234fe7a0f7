#include "data/chat_encoder.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "text/tool_format.h"

namespace frugal::data {
namespace {

// A row may have 16 MiB; one request of a server may spend less.
constexpr text::TemplateLimits kLimits = {
    .max_steps = 20'000'000, .max_output_bytes = size_t{32} << 20, .max_live_bytes = size_t{512} << 20, .max_seconds = 60};

using Parts = std::vector<text::EncodedPart>;

std::vector<text::Tool> told_tools(const Json& tools) {
  std::vector<text::Tool> result;
  for (const Json& tool : tools) {
    const Json& function = tool["function"];
    text::Tool one{function["name"].get<std::string>(), "", nullptr};
    if (const auto text = function.find("description"); text != function.end() && text->is_string()) one.description = text->get<std::string>();
    if (const auto schema = function.find("parameters"); schema != function.end() && schema->is_object() && !schema->empty()) one.parameters = *schema;
    result.push_back(std::move(one));
  }
  return result;
}

// A template that knows no tools is told of them in words, as in serving.
void tell_tools(Conversation& conversation) {
  const bool talks =
      std::ranges::any_of(conversation.messages, [](const Json& message) { return message["role"] == "tool" || message.contains("tool_calls"); });
  if (conversation.tools.is_null() && !talks) return;
  const std::vector<text::Tool> tools = told_tools(conversation.tools);
  if (conversation.first > 0) {
    Json before = Json::array();
    for (size_t i = 0; i < conversation.first; ++i) before.push_back(conversation.messages[i]);
    conversation.first = text::with_tools_told(before, tools).size();
  }
  conversation.messages = text::with_tools_told(conversation.messages, tools);
  conversation.tools = nullptr;
}

std::vector<ByteSpan> generation_spans(const std::vector<text::RenderedSegment>& segments) {
  std::vector<ByteSpan> spans;
  size_t at = 0;
  for (const text::RenderedSegment& segment : segments) {
    const size_t end = at + segment.text.size();
    if (segment.generation && !spans.empty() && spans.back().end == at)
      spans.back().end = end;
    else if (segment.generation)
      spans.push_back({at, end});
    at = end;
  }
  return spans;
}

// The tokens of one rendered text and the bytes that they stand for.
class TokenMap {
 public:
  TokenMap(const text::Tokenizer& tokenizer, const std::string& text, const std::vector<int32_t>& tokens, const Parts& parts)
      : tokenizer_(tokenizer), text_(text), tokens_(tokens), parts_(parts) {}

  // The tokens [first, last) that overlap the bytes.
  std::pair<size_t, size_t> overlapping(ByteSpan span) const {
    if (span.begin >= span.end) return {0, 0};
    return {token_at(span.begin, true), token_at(span.end, false)};
  }

 private:
  // The first token that ends after `byte`, or (not `ends`) that begins at it or after it.
  size_t token_at(size_t byte, bool ends) const {
    const auto part = std::ranges::find_if(parts_, [&](const text::EncodedPart& p) { return byte < p.end; });
    if (part == parts_.end()) return tokens_.size();
    if (byte <= part->begin) return part->first;
    if (part->special) return ends ? part->first : part->last;
    const std::string_view text = std::string_view(text_).substr(part->begin, part->end - part->begin);
    return part->first + token_in(text, std::span(tokens_).subspan(part->first, part->last - part->first), byte - part->begin, ends);
  }

  size_t token_in(std::string_view text, std::span<const int32_t> tokens, size_t byte, bool ends) const {
    const std::string written = written_as(tokens);
    const bool space = written.size() == text.size() + 1 && written[0] == ' ';  // that some vocabularies put before a text
    if (std::string_view(written).substr(space ? 1 : 0) == text) {
      byte += space ? 1 : 0;
    } else {  // the tokenizer changes the text (Unicode normalization)
      const std::string before = written_as(tokenizer_.encode(text.substr(0, byte), {.add_special = false, .at_start = text.data() == text_.data()}));
      if (!written.starts_with(before))
        fail(ErrorKind::invalid_input, "cannot tell which tokens an answer has: the tokenizer changes the text at its border, near {}",
             printable(text.substr(byte > 20 ? byte - 20 : 0, 40)));
      byte = before.size();
    }
    size_t begin = 0, at = 0;
    for (; at < tokens.size(); ++at) {
      const size_t end = begin + tokenizer_.piece(tokens[at]).size();
      if (ends ? end > byte : begin >= byte) break;
      begin = end;
    }
    return at;
  }

  std::string written_as(std::span<const int32_t> tokens) const {
    std::string text;
    for (const int32_t id : tokens) text += tokenizer_.piece(id);
    return text;
  }

  const text::Tokenizer& tokenizer_;
  const std::string& text_;
  const std::vector<int32_t>& tokens_;
  const Parts& parts_;
};

void mark_ends(Sequence& sequence, const Parts& parts, const std::vector<bool>& ends_turn, TrainOnEos train) {
  const auto ends = [&](const text::EncodedPart& part) { return part.special && ends_turn[static_cast<size_t>(sequence.tokens[part.first])]; };
  size_t last = SIZE_MAX;
  bool after_end = false;
  for (const text::EncodedPart& part : parts) {
    const bool follows_end = std::exchange(after_end, ends(part));
    if (!after_end) continue;
    uint8_t& trained = sequence.trained[part.first];
    const bool of_learned = trained || (part.first > 0 && !follows_end && sequence.trained[part.first - 1]);
    if (of_learned) last = part.first;
    trained = train == TrainOnEos::all || (train == TrainOnEos::turn && of_learned);
  }
  if (train == TrainOnEos::last && last != SIZE_MAX) sequence.trained[last] = 1;
}

}  // namespace

TrainOnEos train_on_eos(std::string_view name) {
  if (name == "turn") return TrainOnEos::turn;
  if (name == "all") return TrainOnEos::all;
  if (name == "last") return TrainOnEos::last;
  if (name == "none") return TrainOnEos::none;
  fail(ErrorKind::invalid_input, "train_on_eos must be turn, all, last or none, is {}", printable(name));
}

ChatEncoder::ChatEncoder(const TextModel& model, MaskOptions options)
    : model_(model), options_(std::move(options)), encoder_(*model.tokenizer), ends_turn_(static_cast<size_t>(model.tokenizer->vocab_size())) {
  for (const int32_t id : model.tokenizer->special().end_of_generation) ends_turn_[static_cast<size_t>(id)] = true;
  if (!model.chat_template) return;
  marks_generation_ = model.chat_template->source().find("endgeneration") != std::string::npos;
  native_tools_ = text::tool_format(*model.chat_template).native;
}

struct ChatEncoder::Whole {
  MarkedText text;
  std::vector<size_t> ends;  // where the tokens that end a turn end
  size_t needed;             // what lies after it is cut off
};

ChatEncoder::Whole ChatEncoder::whole_of(const std::vector<text::RenderedSegment>& segments, std::span<const int32_t> tokens, const Parts& parts,
                                         size_t max_tokens) const {
  Whole whole{marked(segments), {}, 0};
  for (const text::EncodedPart& part : parts) {
    if (part.first < max_tokens) whole.needed = part.end;
    if (part.special && ends_turn_[static_cast<size_t>(tokens[part.first])]) whole.ends.push_back(part.end);
  }
  return whole;
}

std::vector<ByteSpan> ChatEncoder::found_spans(const Json& messages, size_t first, text::RenderOptions options, const Whole& whole) const {
  const SpanFinder finder(messages, whole.text, whole.ends, [&](const Json& some, bool add_generation_prompt) {
    options.add_generation_prompt = add_generation_prompt;
    return marked(model_.chat_template->render(some, options));
  });
  std::vector<ByteSpan> spans;
  for (size_t i = first; i < messages.size() && (spans.empty() || spans.back().begin < whole.needed); ++i) {
    const std::string role = messages[i]["role"].get<std::string>();
    if (options_.roles_to_train.contains(role)) spans.push_back(role == "assistant" ? finder.answer(i) : finder.contents(i));
  }
  return spans;
}

std::optional<Sequence> ChatEncoder::encode(const Conversation& given, size_t max_tokens, bool truncate) const {
  if (!model_.chat_template) {
    fail(ErrorKind::invalid_input, "a conversation needs a chat template, and the model has none{}{}",
         model_.chat_template_problem.empty() ? "" : " that works: ", model_.chat_template_problem);
  }
  Conversation conversation = given;
  if (!native_tools_) tell_tools(conversation);
  const Json messages = text::normalized_messages(conversation.messages);
  text::RenderOptions options;
  options.tools = conversation.tools;
  options.bos_token = model_.bos_text;
  options.eos_token = model_.eos_text;
  options.extra = model_.template_arguments;
  options.clock = model_.clock;
  options.limits = kLimits;
  const std::vector<text::RenderedSegment> segments = model_.chat_template->render(messages, options);

  Sequence result;
  Parts parts;
  try {
    result.tokens = encoder_.encode(segments, truncate ? SIZE_MAX : max_tokens, &parts);
  } catch (const text::TooManyTokens&) {
    return std::nullopt;
  }
  result.trained.assign(result.tokens.size(), options_.train_on_inputs);
  if (!options_.train_on_inputs) {
    const Whole whole = whole_of(segments, result.tokens, parts, max_tokens);
    const TokenMap map(*model_.tokenizer, whole.text.text, result.tokens, parts);
    const bool by_marks = marks_generation_ && conversation.first == 0 && options_.roles_to_train == std::set<std::string>{"assistant"};
    for (const ByteSpan& span : by_marks ? generation_spans(segments) : found_spans(messages, conversation.first, options, whole)) {
      const auto [first, last] = map.overlapping(span);
      for (size_t i = first; i < last; ++i) result.trained[i] = 1;
    }
    mark_ends(result, parts, ends_turn_, options_.train_on_eos);
  }
  result.cut = result.tokens.size() > max_tokens;
  if (result.cut) {
    result.tokens.resize(max_tokens);
    result.trained.resize(max_tokens);
  }
  if (!result.trained.empty()) result.trained[0] = 0;
  return result;
}

}  // namespace frugal::data
