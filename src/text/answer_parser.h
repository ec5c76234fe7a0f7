// What a model generated, as it comes: reasoning, text for the reader, and calls of tools. Fed with pieces of any size it says the
// same as fed with the whole, so that a streamed answer is the answer.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/tool_format.h"

namespace frugal::text {

struct AnswerParserOptions {
  const ToolFormat* tools = nullptr;  // null: no calls are looked for
  std::vector<std::string> names;     // of the tools that may be called
  ReasoningMarks reasoning = {};      // empty: none is looked for
  bool in_reasoning = false;          // the prompt has opened it
  bool calls_alone = false;           // a call is at the beginning: behind text none is looked for
};

// A call begins with its name; then come its arguments, JSON text in parts.
struct CallDelta {
  size_t index = 0;
  std::string name;  // empty: more arguments of the call
  std::string arguments;
};

struct AnswerDelta {
  std::string content, reasoning;
  std::vector<CallDelta> calls;
};

// Text that looks like a call and is none (an unknown name, another form) is content. Of a call that breaks off after its name,
// what there is of its arguments is kept. White space around reasoning and calls is dropped. Not thread-safe.
class AnswerParser {
 public:
  explicit AnswerParser(AnswerParserOptions options);
  AnswerDelta push(std::string_view text);
  AnswerDelta finish();  // what was held back

 private:
  enum class Where { start, reasoning, content, head, arguments, tail };  // the last three: of a call
  // Each takes what it understands from held_; false: more text is needed.
  bool step(AnswerDelta& delta, bool last);
  bool start(bool last);
  bool reason(AnswerDelta& delta, bool last);
  bool content(AnswerDelta& delta, bool last);
  bool head(AnswerDelta& delta, bool last);
  bool arguments(AnswerDelta& delta);
  bool tail();
  void say(AnswerDelta& delta, std::string_view text);

  AnswerParserOptions options_;
  Where where_;
  std::string held_;         // not yet understood
  std::string space_;        // white space that is said if more content comes
  bool reasoned_ = false;    // some reasoning was said,
  bool said_ = false;        // some content
  bool after_mark_ = false;  // white space before content is dropped
  size_t calls_ = 0;
  int depth_ = 0;  // of the arguments at hand
  bool in_string_ = false, escaped_ = false, in_object_ = false;
};

}  // namespace frugal::text
