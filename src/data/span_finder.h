// Where in a rendered conversation the turns lie that are learned, found by rendering parts of it:
//
//   start of answer i   where the rendering of the messages before it, with add_generation_prompt, ends: what serving would send.
//                       A template whose prompt goes on otherwise than what it writes later (an opened <think>) starts where they part.
//   end of answer i     where the rendering of the messages up to and with it ends. When that is no beginning of the whole (templates
//                       that close the text, or write an answer otherwise once another question follows, as those that drop its
//                       thinking do), the next message is exchanged for another one, and the answer ends before the first
//                       difference. Of what lies there it ends with the first end of a turn after its content, if there is one.
//                       Where no token ends a turn, nothing of it may follow in the whole.
//
// Texts are compared with the marks of what came from data, so that contents never pass for a header. When the messages before an
// answer are rendered otherwise alone than in the whole (a system prompt that moves to the last question, thinking that is dropped
// from calls of tools), nothing tells where the answer lies: Error{invalid_input}.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "text/chat_template.h"

namespace frugal::data {

// Bytes [begin, end) of a rendered conversation.
struct ByteSpan {
  size_t begin, end;
};

// A rendered text with, for each byte, whether it came from data.
struct MarkedText {
  std::string text;
  std::vector<bool> from_data;
};
MarkedText marked(const std::vector<text::RenderedSegment>& segments);

using RenderMessages = std::function<MarkedText(const Json& messages, bool add_generation_prompt)>;

class SpanFinder {
 public:
  // `ends`: where the special tokens of `whole`, the rendering of all messages, end that end a turn; ascending.
  SpanFinder(const Json& messages, const MarkedText& whole, std::vector<size_t> ends, RenderMessages render);

  // From the header of its turn to its end of turn, if the template writes one, else to the end of its rendering.
  ByteSpan answer(size_t index) const;
  // Of a turn of another role: from the first to the last byte that came from the message; empty where there is none.
  ByteSpan contents(size_t index) const;

 private:
  Json first(size_t count) const;
  size_t common(const MarkedText& other) const;
  size_t last_end(size_t limit) const;  // of the ends up to `limit`; 0 where there is none
  size_t start_of_answer(size_t index) const;
  size_t limit_of_answer(size_t index, size_t begin) const;  // before the next message
  size_t start_of_next(size_t index) const;
  size_t whole_prefix(size_t count) const;
  [[noreturn]] void refuse(size_t index, std::string_view reason) const;

  const Json& messages_;
  const MarkedText& whole_;
  std::vector<size_t> ends_;
  RenderMessages render_;
};

}  // namespace frugal::data
